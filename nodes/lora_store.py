"""Where trained LoRAs live: models/loras, under a name that carries the hash of the request that made them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
import safetensors
from torch import Tensor

from ..diffstyler_core.lora_file import load_lora, save_lora

log = logging.getLogger(__name__)

HASH_LENGTH = 12


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
        """Where the result goes when models/loras cannot take it: the host's temp directory."""
        return Path(folder_paths.get_temp_directory()) / "diffstyler" / Path(self.name).name

    def find(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(LoRA, its metadata) when this very request was trained before; None when it was not."""
        for path in (self.path, self.rescue):
            if not path.is_file():
                continue
            try:
                state, metadata = load_lora(path)
            except (OSError, ValueError, safetensors.SafetensorError) as error:
                log.warning("%s cannot be read (%s): training again.", path.name, error)
                continue
            if metadata.get("request") == self.request and metadata.get("stopped_at") is None:
                return state, metadata
        return None

    def check_writable(self, size: int) -> None:
        """Raises ValueError, before any training, when the folder cannot take a file of ``size`` bytes."""
        parent = self.path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            probe = parent / f".{self.path.stem}_stopped_at_{uuid.uuid4().hex}.probe"  # as long as any name gets
            probe.write_bytes(b"")
            probe.unlink()
            free = shutil.disk_usage(parent).free
        except OSError as error:
            raise ValueError(
                f"filename_prefix: the LoRA folder {parent} cannot be written ({error.strerror}). "
                "Mend its permissions, choose another prefix, or switch save off."
            ) from error
        if free < size + 10_000_000:
            raise ValueError(
                f"filename_prefix: the disk of {parent} has {free / 1e6:.0f} MB left and the LoRA needs "
                f"{size / 1e6:.0f} MB. Free some space, or switch save off."
            )

    def save(self, state: dict[str, Tensor], metadata: dict[str, str], suffix: str = "") -> str:
        """Writes the LoRA and returns the name under which the loaders list it.

        When models/loras cannot take it, it goes to the host's temp directory, and an error says so.
        """
        path = self.path.with_name(self.path.stem + suffix + self.path.suffix)
        try:
            save_lora(path, state, metadata)
        except OSError as error:
            rescue = self.rescue.with_name(self.rescue.stem + suffix + self.rescue.suffix)
            save_lora(rescue, state, metadata)
            raise ValueError(
                f"filename_prefix: {path.name} could not be written to {path.parent} ({error.strerror or error}). "
                f"The trained LoRA is safe in {rescue}; make room and queue again, nothing is trained twice."
            ) from error
        return os.path.relpath(path, self.folder)


def safe_prefix(prefix: str) -> str:
    """A file name prefix, with subfolders, that stays inside its folder. Raises ValueError for anything else."""
    parts = prefix.strip().split("/")
    plain = re.compile(r"[^\x00-\x1f<>:\"|?*\\/]+")
    if any(not plain.fullmatch(p) or p.strip(" .") != p or p in (".", "..") for p in parts):
        raise ValueError(
            f"filename_prefix: {prefix!r} is no plain name. Use letters, digits, '-', '_' and '/' for subfolders of "
            "models/loras; no '..', no drive, no leading '/'."
        )
    return "/".join(parts)
