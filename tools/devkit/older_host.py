"""An older ComfyUI under .host/<version>, with an environment that has what it pins and takes the rest from another."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import fetch, stages
from .console import Failure, say
from .own_host import fetch_sources, venv_python
from .pip import NETWORK, Pip

VERSIONS = tuple(sources.comfyui for sources in fetch.OLDER)
_SITE_PACKAGES = "import json, site; print(json.dumps(site.getsitepackages()))"
_LAYER = "import site; site.addsitedir({!r})\n"


def prepare(root: Path, python: Path, version: str) -> tuple[Path, Path]:
    """Finish the set-up of ComfyUI `version`, one of VERSIONS, under root/.host. -> (the ComfyUI folder, the Python)

    `python`: of an environment that has what the pack and a newer ComfyUI need; it stays as it is.
    """
    sources = next(sources for sources in fetch.OLDER if sources.comfyui == version)
    room = root / ".host" / version
    work = _Work(sources, room, python)
    plan = work.stages()
    ledger = stages.Ledger(room / "stamps")
    if stages.pending(plan, ledger):
        say(f"Setting up ComfyUI {version} under {room}: about 1 GB, a minute with a fast line.")
        stages.run(plan, ledger, room)
        shutil.rmtree(room / "tmp", ignore_errors=True)
    return work.comfyui, work.python


class _Work:
    """What the stages do."""

    def __init__(self, sources: fetch.Sources, room: Path, base: Path) -> None:
        self.sources = sources
        self.room = room
        self.base = base
        self.comfyui = room / "ComfyUI"
        self.python = venv_python(room / "venv")

    def stages(self) -> Sequence[stages.Stage]:
        wanted = (self.sources.requirement, self.sources.sha256)
        return [
            stages.Stage(
                "comfyui",
                "Fetching the ComfyUI sources",
                "about 10 seconds",
                0.2,
                lambda: wanted,
                self._fetch,
                NETWORK,
                lambda: (self.comfyui / "main.py").is_file(),
            ),
            stages.Stage(
                "venv",
                "Making a virtual environment",
                "about 5 seconds",
                0.1,
                lambda: (str(self.base),),
                lambda: make_layer(self.base, self.room / "venv", self.room),
                f"look whether {self.base} runs, and can make a virtual environment.",
                self.python.is_file,
            ),
            stages.Stage(
                "requirements",
                "Installing what that ComfyUI pins",
                "about 30 seconds",
                0.8,
                lambda: ((self.comfyui / "requirements.txt").read_text(encoding="utf-8"),),
                lambda: self._pip().install("requirements", "-r", str(self.comfyui / "requirements.txt")),
                NETWORK,
            ),
        ]

    def _pip(self) -> Pip:
        return Pip(self.python, self.room)

    def _fetch(self) -> None:
        self.room.mkdir(parents=True, exist_ok=True)
        (self.room.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        fetch_sources(self.sources, Pip(self.base, self.room), self.room.parent / "download", self.comfyui)


def make_layer(base: Path, venv: Path, room: Path) -> None:
    """An environment whose own packages come first, and behind them those of `base`, pip among them."""
    shutil.rmtree(venv, ignore_errors=True)
    Pip(base, room).run("venv", [str(base), "-m", "venv", "--without-pip", str(venv)])
    lines = [_LAYER.format(folder) for folder in site_packages(base)]
    own = Path(site_packages(venv_python(venv))[0])
    (own / "layer.pth").write_text("".join(lines), encoding="utf-8")


def site_packages(python: Path) -> list[str]:
    """The folders that hold the packages of a Python; its own first, in a virtual environment the only one."""
    asked = subprocess.run([str(python), "-c", _SITE_PACKAGES], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise Failure("venv", f"{python} does not run: {asked.stderr.strip()}", "mend COMFYUI_PYTHON.")
    return [str(folder) for folder in json.loads(asked.stdout)]
