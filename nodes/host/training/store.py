"""Where trained files live: the host's folder of their kind, under a name with the hash of their request."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import folder_paths
from torch import Tensor

from ....diffstyler_core.lora.file import read_own
from ..paths import plain_name, shortened
from .picture_name import TOKEN
from .writing import LORA, STYLE_EMBEDDING, FileKind, Saved, remove, require_writable, write_or_rescue

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

HASH_LENGTH = 12


class Found(NamedTuple):
    """What was trained before, and what was recorded with it.

    name: how the loaders list it. rescued: it still waits in the temp directory, and they do not.
    """

    state: dict[str, Tensor]
    record: dict[str, Any]
    name: str
    rescued: bool


@dataclass(frozen=True)
class Store:
    """The place of one request's file. ``name`` is how the stock loaders of its kind list it."""

    kind: ClassVar[FileKind]

    folder: Path
    name: str
    request: str

    @classmethod
    def of(cls, prefix: str, request: str) -> Self:
        """The store for a file name prefix as typed into a widget, confined to the folder of its kind."""
        folder = Path(folder_paths.get_folder_paths(cls.kind.folder)[0])
        return cls(folder, f"{cls.safe_prefix(prefix)}_{request[:HASH_LENGTH]}.safetensors", request)

    @classmethod
    def safe_prefix(cls, prefix: str) -> str:
        """A prefix, with subfolders, that stays inside its folder. Raises ValueError for anything else."""
        return plain_name(prefix, "filename_prefix", f"models/{cls.kind.folder}")

    @classmethod
    def rescue_folder(cls) -> Path:
        """Where files wait to be saved: in the host's temp directory, which it empties at its start."""
        return Path(folder_paths.get_temp_directory()) / "diffstyler" / cls.kind.folder

    @classmethod
    def rescued_names(cls, prefix: str) -> list[str]:
        """The files of a prefix that wait to be saved; its token may stand for any picture's name."""
        name = ".+".join(map(re.escape, prefix.strip().split("/")[-1].split(TOKEN)))
        waiting = re.compile(rf"{name}_[0-9a-f]{{{HASH_LENGTH}}}\.safetensors")
        return sorted(path.name for path in cls.rescue_folder().glob("*.safetensors") if waiting.fullmatch(path.name))

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    def rescued(self) -> list[Path]:
        """Where this request's result waits to be saved, under whatever prefix it was asked for."""
        return self._of_this_request(self.rescue_folder())

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
        require_writable(self.path, self.name, size, self.kind)

    def save(self, state: dict[str, Tensor], metadata: dict[str, str], suffix: str = "") -> Saved:
        """Writes the file; into the host's temp directory where its folder cannot take it. Never raises OSError."""
        path = self.path.with_name(self.path.stem + suffix + self.path.suffix)
        name = os.path.relpath(path, self.folder)
        saved = write_or_rescue(path, self.rescue_folder() / path.name, name, state, metadata, self.kind)
        if saved.name:
            for waiting in self.rescued():
                remove(waiting)
        return saved


class LoraStore(Store):
    """The place of a LoRA in models/loras."""

    kind = LORA


class EmbeddingStore(Store):
    """The place of a style embedding in models/embeddings, which prompts name as 'embedding:' and its file."""

    kind = STYLE_EMBEDDING

    @classmethod
    def safe_prefix(cls, prefix: str) -> str:
        """Also refuses what a prompt could not name: the host reads 'embedding:' up to a space, a bracket or so."""
        name = super().safe_prefix(prefix)
        bad = sorted(set(re.findall(r"[\s()\[\],]", name.replace(TOKEN, ""))))
        if bad:
            raise ValueError(
                f"filename_prefix: a prompt names the embedding as embedding:{shortened(name)}, and that ends at "
                f"{' and '.join(map(repr, bad))}. Use letters, digits, '-', '_', '.' and '/'."
            )
        return name


def safe_prefix(prefix: str) -> str:
    """``LoraStore.safe_prefix``."""
    return LoraStore.safe_prefix(prefix)
