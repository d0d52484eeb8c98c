"""Which ComfyUI and which Python are used."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import own_host
from .console import Failure
from .project import distribution_name, requirements


@dataclass(frozen=True)
class Host:
    comfyui: Path
    python: Path

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment variables under which the pack's tools find this host.

        OMP_WAIT_POLICY: threads that spin while they wait take the processor from those they wait for as soon as
        anything else runs. Measured on two busy cores: a training step is 8 times faster when they sleep instead.
        """
        told = {"COMFYUI_PATH": str(self.comfyui), "COMFYUI_PYTHON": str(self.python)}
        return {"OMP_WAIT_POLICY": "PASSIVE", **environ, **told}


def prepare(root: Path, environ: Mapping[str, str], extras: Sequence[str] = ()) -> Host:
    """The host to use, set up if it has to be. `extras`: pyproject's optional groups that a told host must have."""
    told = told_comfyui(root, environ)
    python = None if told is None else _python_of(told, environ)
    if told is not None and python is not None:
        _require_packages(python, ("torch", "aiohttp", *requirements(root / "pyproject.toml", *extras)))
        return Host(told, python)
    if environ.get("COMFYUI_PYTHON"):
        raise Failure(
            "find ComfyUI", "COMFYUI_PYTHON is set, COMFYUI_PATH is not.", "set COMFYUI_PATH to that ComfyUI's folder."
        )
    comfyui, own_python = own_host.prepare(root, told)
    return Host(comfyui, own_python)


def existing(root: Path, environ: Mapping[str, str]) -> Path | None:
    """The ComfyUI folder that is there already; nothing is set up."""
    told = told_comfyui(root, environ)
    own = own_host.Places(root / ".host").comfyui
    return told or (own if is_comfyui(own) else None)


def told_comfyui(root: Path, environ: Mapping[str, str]) -> Path | None:
    """The ComfyUI that COMFYUI_PATH names, or that the pack lies in."""
    named = environ.get("COMFYUI_PATH")
    if named:
        path = Path(named).expanduser().absolute()
        if not is_comfyui(path):
            raise Failure(
                "find ComfyUI",
                f"COMFYUI_PATH is {named!r}, where there is no ComfyUI (main.py and comfy/).",
                "set it to the folder that holds ComfyUI's main.py, or unset it to have one set up here.",
            )
        return path
    around = root.parent.parent
    return around if root.parent.name == "custom_nodes" and is_comfyui(around) else None


def is_comfyui(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "comfy").is_dir() and (path / "folder_paths.py").is_file()


def _python_of(comfyui: Path, environ: Mapping[str, str]) -> Path | None:
    """COMFYUI_PYTHON, the environment that lies with that ComfyUI, or this Python if it has torch; else None."""
    named = environ.get("COMFYUI_PYTHON")
    if named:
        path = Path(named).expanduser().absolute()  # not resolved: a venv's Python is a link
        if not path.is_file():
            raise Failure("find ComfyUI", f"COMFYUI_PYTHON is {named!r}, which is no file.", "set it to a Python.")
        return path
    candidates = [own_host.venv_python(comfyui / name) for name in (".venv", "venv")]
    candidates.append(comfyui.parent / "python_embeded" / "python.exe")  # the portable Windows build spells it so
    found = next((path for path in candidates if path.is_file()), None)
    return found or (Path(sys.executable) if importlib.util.find_spec("torch") else None)


_LIST_MISSING = """
import importlib.metadata, json, sys
def there(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False
print(json.dumps([n for n in json.loads(sys.argv[1]) if not there(n)]))
"""


def _require_packages(python: Path, wanted: Sequence[str]) -> None:
    names = {distribution_name(requirement): requirement for requirement in wanted}
    asked = subprocess.run(
        [str(python), "-c", _LIST_MISSING, json.dumps(list(names))], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise Failure("check the environment", f"{python} does not run: {asked.stderr.strip()}", "mend COMFYUI_PYTHON.")
    missing = [names[name] for name in json.loads(asked.stdout)]
    if missing:
        quoted = " ".join(f'"{requirement}"' for requirement in missing)
        raise Failure(
            "check the environment",
            f"{python} lacks {', '.join(missing)}. An environment that was not made here is left as it is.",
            f'run: "{python}" -m pip install {quoted}{os.linesep}or unset COMFYUI_PATH and COMFYUI_PYTHON to have '
            "an environment set up under .host/.",
        )
