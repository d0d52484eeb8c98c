"""Where trained LoRAs live: models/loras, under a name that carries the hash of the request that made them."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
from torch import Tensor

from ....diffstyler_core.lora.file import read_own
from ..paths import plain_name
from .picture_name import TOKEN
from .writing import Saved, remove, require_writable, write_or_rescue

log = logging.getLogger(__name__)

HASH_LENGTH = 12


class Found(NamedTuple):
    """A LoRA that was trained before, and what was recorded with it.

    name: how the loaders list it. rescued: it still waits in the temp directory, and they do not.
    """

    state: dict[str, Tensor]
    record: dict[str, Any]
    name: str
    rescued: bool


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

    def rescued(self) -> list[Path]:
        """Where this request's result waits to be saved, under whatever prefix it was asked for."""
        return self._of_this_request(rescue_folder())

    def renamed(self) -> list[Path]:
        """This request's result under other names in its folder: the style picture's file may have been renamed."""
        return [path for path in self._of_this_request(self.path.parent) if path != self.path]

    def _of_this_request(self, folder: Path) -> list[Path]:
        if not os.path.isdir(folder):  # no folder yet, or a path that no system takes: writing there says so
            return []
        return sorted(folder.glob(f"*_{self.request[:HASH_LENGTH]}.safetensors"))

    def find(self) -> tuple[Found | None, str]:
        """(what this very request was trained to before, or None; why a file that is there was not taken, or '')."""
        reasons = []
        waiting = self.rescued()
        for path in (self.path, *self.renamed(), *waiting):
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
        """Raises ValueError, before any training, when a file of ``size`` bytes cannot be put in its place."""
        require_writable(self.path, self.name, size)

    def save(self, state: dict[str, Tensor], metadata: dict[str, str], suffix: str = "") -> Saved:
        """Writes the LoRA; into the host's temp directory when models/loras cannot take it. Never raises OSError."""
        path = self.path.with_name(self.path.stem + suffix + self.path.suffix)
        name = os.path.relpath(path, self.folder)
        saved = write_or_rescue(path, rescue_folder() / path.name, name, state, metadata)
        if saved.name:
            for waiting in self.rescued():
                remove(waiting)
        return saved


def safe_prefix(prefix: str) -> str:
    """A file name prefix, with subfolders, that stays inside its folder. Raises ValueError for anything else."""
    return plain_name(prefix, "filename_prefix", "models/loras")


def rescue_folder() -> Path:
    """The folder of LoRAs that wait to be saved: in the host's temp directory, which it empties at its start."""
    return Path(folder_paths.get_temp_directory()) / "diffstyler" / "loras"


def rescued_names(prefix: str) -> list[str]:
    """The LoRAs of a file name prefix that wait to be saved; its token may stand for any picture's name."""
    name = ".+".join(map(re.escape, prefix.strip().split("/")[-1].split(TOKEN)))
    waiting = re.compile(rf"{name}_[0-9a-f]{{{HASH_LENGTH}}}\.safetensors")
    return sorted(path.name for path in rescue_folder().glob("*.safetensors") if waiting.fullmatch(path.name))
