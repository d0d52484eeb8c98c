"""Builds of ComfyUI's frontend from the package index, for the browser tests beside the one that the host pins."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

from .console import Failure, say
from .fetch import require_sha256
from .pip import NETWORK, Pip
from .process import CommandFailed

NEWEST = "newest"
TRIED = "1.58.1"
"""The newest on the index when it was last tried here."""
SHA256 = {TRIED: "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"}
PACKAGE = "comfyui-frontend-package"
_STATIC = "comfyui_frontend_package/static/"
_WHEEL = "comfyui_frontend_package-{}-py3-none-any.whl"
_VERSION = re.compile(r"\d+(\.\d+)+")
STAGE = "frontend"


def prepare(root: Path, python: Path, version: str) -> Path:
    """The folder of a build for --front-end-root: root/.host/frontends/<version>. `version`: a number, or NEWEST."""
    room = root / ".host"
    pip = Pip(python, room)
    try:
        return _newest(pip, room) if version == NEWEST else _numbered(pip, room, version)
    except CommandFailed as error:
        raise Failure(STAGE, str(error), f"look whether the index has {PACKAGE} {version}; {NETWORK}") from error


def is_version(text: str) -> bool:
    return text == NEWEST or _VERSION.fullmatch(text) is not None


def _numbered(pip: Pip, room: Path, version: str) -> Path:
    target = room / "frontends" / version
    if not (target / "index.html").is_file():
        say(f"Fetching ComfyUI's frontend {version}: about 30 MB")
        wheel = room / "download" / _WHEEL.format(version)
        if not wheel.is_file():
            pip.download(STAGE, f"{PACKAGE}=={version}", wheel.name, wheel.parent)
        if version in SHA256:
            require_sha256(wheel, SHA256[version])
        unpack(wheel, target)
    return target


def _newest(pip: Pip, room: Path) -> Path:
    """Which one it is, pip finds out anew each time."""
    say("Asking the index for the newest frontend")
    wheel = pip.download(STAGE, PACKAGE, _WHEEL.format("*"), room / "download")
    version = wheel.name.split("-")[1]
    if version == TRIED:
        say(f"The newest frontend is {version}, which every run tries.")
    else:
        say(
            f"The newest frontend is {version}, every run tries {TRIED}. If the tests pass with the newest, enter its "
            "number and its sum in tools/devkit/frontends.py."
        )
    return _numbered(pip, room, version)


def unpack(wheel: Path, target: Path) -> None:
    """The build in a wheel as `target`, whole or not at all."""
    half = target.with_name(target.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(half, [name for name in archive.namelist() if name.startswith(_STATIC)])
    if not (half / _STATIC / "index.html").is_file():
        raise Failure(STAGE, f"{wheel.name} has no {_STATIC}index.html.", f"delete {wheel} and run again.")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(half / _STATIC, target)
    shutil.rmtree(half, ignore_errors=True)
