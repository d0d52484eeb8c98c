"""Where trained LoRAs live: models/loras, under a name that carries the hash of the request that made them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
from torch import Tensor

from ....diffstyler_core.lora.file import read_own, save_lora
from .picture_name import TOKEN

log = logging.getLogger(__name__)

HASH_LENGTH = 12
LONGEST_PART = 200
"""Bytes of one part of a prefix: file systems take 255, and the hash and the endings are added to it."""
STEM = r"\..*_[0-9a-f]{12}"
LEFT_BEHIND = re.compile(STEM + r"((_stopped_at_\d+)?\.[0-9a-f]{8}\.partial|_stopped_at_[0-9a-f]{17}\.probe)")
OLD = 24 * 3600.0


class Found(NamedTuple):
    """A LoRA that was trained before, and what was recorded with it.

    name: how the loaders list it. rescued: it still waits in the temp directory, and they do not.
    """

    state: dict[str, Tensor]
    record: dict[str, Any]
    name: str
    rescued: bool


class Saved(NamedTuple):
    """Under which name the loaders list a LoRA (empty: they do not), and what the user is told about it."""

    name: str
    words: str


@dataclass(frozen=True)
class LoraStore:
    """The place of one request's LoRA. ``name`` is how the stock LoRA loaders list it."""

    folder: Path
    name: str
    request: str

    @classmethod
    def of(cls, prefix: str, request: str) -> LoraStore:
        """The store for a file name prefix as typed into a widget, confined to models/loras."""
        folder = Path(folder_paths.get_folder_paths("loras")[0])
        return cls(folder, f"{safe_prefix(prefix)}_{request[:HASH_LENGTH]}.safetensors", request)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    @property
    def rescue(self) -> Path:
        """Where the result goes when models/loras cannot take it."""
        return rescue_folder() / self.path.name

    def rescued(self) -> list[Path]:
        """Where this request's result waits to be saved, under whatever prefix it was asked for."""
        return self._of_this_request(rescue_folder())

    def renamed(self) -> list[Path]:
        """This request's result under other names in its folder: the style picture's file may have been renamed."""
        return [path for path in self._of_this_request(self.path.parent) if path != self.path]

    def _of_this_request(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"*_{self.request[:HASH_LENGTH]}.safetensors"))

    def find(self) -> tuple[Found | None, str]:
        """(what this very request was trained to before, or None; why a file that is there was not taken, or '')."""
        reasons, renamed, waiting = [], [], self.rescued()
        try:
            renamed = self.renamed()
        except OSError as error:
            reasons.append(f"{self.path.parent} cannot be searched: {error.strerror or error}")
        for path in (self.path, *renamed, *waiting):
            try:
                if not path.is_file():
                    continue
                state, record = read_own(path)
            except (OSError, ValueError) as error:
                log.warning("%s cannot be used (%s): training again.", path.name, error)
                reasons.append(f"{path.name} was there and cannot be used: {error}")
                continue
            if record.get("request") == self.request and record.get("stopped_at") is None:
                rescued = path in waiting
                name = "" if rescued else os.path.relpath(path, self.folder)
                return Found(state, record, name, rescued), "\n".join(reasons)
            reasons.append(f"{path.name} was there and is of another request")
        return None, "\n".join(reasons)

    def check_writable(self, size: int) -> None:
        """Raises ValueError, before any training, when a file of ``size`` bytes cannot be put in its place.

        Leaves nothing behind, and removes what crashed runs left in the folder long ago.
        """
        parent = self.path.parent
        try:
            with _made(parent):
                probe = parent / f".{self.path.stem}_stopped_at_{uuid.uuid4().hex[:17]}.probe"  # as long as any gets
                probe.write_bytes(b"")
                probe.unlink()
                free = shutil.disk_usage(parent).free
                taken = self.path.is_dir()
        except OSError as error:
            blocked = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "a file is where a folder should be" if blocked else error.strerror or error
            raise ValueError(
                f"filename_prefix: the LoRA folder {parent} cannot be written ({reason}). "
                "Mend its permissions, choose another prefix, or switch save off."
            ) from error
        if taken:
            raise ValueError(
                f"filename_prefix: {self.name} is a folder, and the LoRA's file would go there. "
                "Rename that folder in models/loras, choose another prefix, or switch save off."
            )
        if free < size + 10_000_000:
            raise ValueError(
                f"filename_prefix: the disk of {parent} has {free / 1e6:.0f} MB left and the LoRA needs "
                f"{size / 1e6:.0f} MB. Free some space, or switch save off."
            )
        sweep(parent)

    def save(self, state: dict[str, Tensor], metadata: dict[str, str], suffix: str = "") -> Saved:
        """Writes the LoRA; into the host's temp directory when models/loras cannot take it. Never raises OSError."""
        path = self.path.with_name(self.path.stem + suffix + self.path.suffix)
        rescue = self.rescue.with_name(self.rescue.stem + suffix + self.rescue.suffix)
        try:
            save_lora(path, state, metadata)
            for waiting in self.rescued():
                _remove(waiting)
            return Saved(os.path.relpath(path, self.folder), f"saved as {os.path.relpath(path, self.folder)}")
        except OSError as error:
            log.error("%s could not be written to %s: %s", path.name, path.parent, error)
            failed = f"NOT SAVED: {path.parent} could not be written ({error.strerror or error})."
        try:
            save_lora(rescue, state, metadata)
        except OSError as error:
            log.error("%s could not be written to %s: %s", rescue.name, rescue.parent, error)
            return Saved(
                "",
                f"{failed} Nor could {rescue.parent} ({error.strerror or error}). The output carries the LoRA until "
                "ComfyUI is closed: make room, then wire Save LoRA Weights to it.",
            )
        return Saved(
            "",
            f"{failed} The LoRA waits in {rescue} until ComfyUI is started anew: "
            "make room and queue again, it is saved then and nothing is trained twice.",
        )


def rescue_folder() -> Path:
    """The folder of LoRAs that wait to be saved: in the host's temp directory, which it empties at its start."""
    return Path(folder_paths.get_temp_directory()) / "diffstyler" / "loras"


def rescued_names(prefix: str) -> list[str]:
    """The LoRAs of a file name prefix that wait to be saved; its token may stand for any picture's name."""
    name = ".+".join(map(re.escape, prefix.strip().split("/")[-1].split(TOKEN)))
    waiting = re.compile(rf"{name}_[0-9a-f]{{{HASH_LENGTH}}}\.safetensors")
    return sorted(path.name for path in rescue_folder().glob("*.safetensors") if waiting.fullmatch(path.name))


def sweep(folder: Path) -> None:
    """Removes half-written files that crashed runs left in a folder: of this module's names, and a day old."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if LEFT_BEHIND.fullmatch(path.name) and path.lstat().st_mtime < time.time() - OLD:
            _remove(path)


def _remove(path: Path) -> None:
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


def safe_prefix(prefix: str) -> str:
    """A file name prefix, with subfolders, that stays inside its folder. Raises ValueError for anything else."""
    parts = prefix.strip().split("/")
    plain = re.compile(r"[^\x00-\x1f<>:\"|?*\\/\ud800-\udfff]+")
    if any(not plain.fullmatch(p) or p.strip(" .") != p or p in (".", "..") for p in parts):
        raise ValueError(
            f"filename_prefix: {shortened(prefix)} is no plain name. Use letters, digits, '-', '_' and '/' for "
            "subfolders of models/loras; no '..', no drive, no leading '/'."
        )
    longest = max(len(p.encode()) for p in parts)
    if longest > LONGEST_PART:
        raise ValueError(
            f"filename_prefix: file systems take no more than {LONGEST_PART} bytes for a name of it, got {longest} in "
            f"{shortened(prefix)}. Use a shorter one."
        )
    return "/".join(parts)


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes, what cannot be printed escaped, cut in the middle when it is long."""
    return repr(text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}")
