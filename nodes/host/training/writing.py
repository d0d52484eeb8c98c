"""Writing what was trained: tried before the training, rescued where it fails after it, swept where runs crashed."""

from __future__ import annotations

import logging
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ....diffstyler_core.lora.file import save_lora

log = logging.getLogger(__name__)

STEM = r"\..*_[0-9a-f]{12}"
LEFT_BEHIND = re.compile(STEM + r"((_stopped_at_\d+)?\.[0-9a-f]{8}\.partial|_stopped_at_[0-9a-f]{17}\.probe)")
OLD = 24 * 3600.0
"""Seconds after which a half-written file is no running training's."""
SPARE = 10_000_000
"""Bytes of a disk that are left to others."""


class FileKind(NamedTuple):
    """What is trained and kept: the host's kind of model folders, its name in words, and what still carries it when
    neither that folder nor the temp directory takes it."""

    folder: str
    name: str
    unsaved: str


LORA = FileKind(
    "loras",
    "LoRA",
    "The output carries the LoRA until ComfyUI is closed: make room, then wire Save LoRA Weights to it.",
)
STYLE_EMBEDDING = FileKind(
    "embeddings",
    "embedding",
    "The conditioning output carries it until ComfyUI is closed: make room, then change the seed and train again.",
)


class Saved(NamedTuple):
    """Under which name the loaders list a file (empty: they do not), and what the user is told about it."""

    name: str
    words: str


def require_writable(path: Path, name: str, size: int, kind: FileKind = LORA) -> None:
    """Raises ValueError when a file of ``size`` bytes cannot be put at ``path``, which the user knows as ``name``.

    Leaves nothing behind, and removes what crashed runs left in the folder long ago.
    """
    parent = path.parent
    try:
        with _made(parent):
            probe = parent / f".{path.stem}_stopped_at_{uuid.uuid4().hex[:17]}.probe"  # as long as any name gets
            probe.write_bytes(b"")
            probe.unlink()
            free = shutil.disk_usage(parent).free
            taken = path.is_dir()
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where a folder should be" if blocked else error.strerror or error
        raise ValueError(
            f"filename_prefix: the {kind.name} folder {parent} cannot be written ({reason}). "
            "Mend its permissions, choose another prefix, or switch save off."
        ) from error
    if taken:
        raise ValueError(
            f"filename_prefix: {name} is a folder, and the {kind.name}'s file would go there. "
            f"Rename that folder in models/{kind.folder}, choose another prefix, or switch save off."
        )
    if free < size + SPARE:
        raise ValueError(
            f"filename_prefix: the disk of {parent} has {free / 1e6:.0f} MB left and the {kind.name} needs "
            f"{size / 1e6:.0f} MB. Free some space, or switch save off."
        )
    sweep(parent)


def write_or_rescue(
    path: Path, rescue: Path, name: str, state: dict[str, Tensor], metadata: dict[str, str], kind: FileKind = LORA
) -> Saved:
    """Writes to ``path``, known as ``name``; to ``rescue`` where that fails. Never raises OSError."""
    failed = _write(path, state, metadata)
    if failed is None:
        return Saved(name, f"saved as {name}")
    words = f"NOT SAVED: {path.parent} could not be written ({failed.strerror or failed})."
    failed = _write(rescue, state, metadata)
    if failed is None:
        return Saved(
            "",
            f"{words} The {kind.name} waits in {rescue} until ComfyUI is started anew: "
            "make room and queue again, it is saved then and nothing is trained twice.",
        )
    return Saved(
        "",
        f"{words} Nor could {rescue.parent} ({failed.strerror or failed}). {kind.unsaved}",
    )


def _write(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> OSError | None:
    """What kept the file from being written; None when it was."""
    try:
        save_lora(path, state, metadata)
    except OSError as error:
        log.error("%s could not be written to %s: %s", path.name, path.parent, error)
        return error
    return None


def sweep(folder: Path) -> None:
    """Removes half-written files that crashed runs left in a folder: of this module's names, and a day old."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if LEFT_BEHIND.fullmatch(path.name) and path.lstat().st_mtime < time.time() - OLD:
            remove(path)


def remove(path: Path) -> None:
    """Removes a file that is of no more use; when it cannot be, it stays, and the log says so."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s is of no more use and cannot be removed: %s", path, error)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder exists while this is open; folders made for it go again, unless another run has filled them."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
