"""Where captured steps are kept: in memory or in files, one step at a time (method.md section 3)."""

from __future__ import annotations

import hashlib
import shutil
import weakref
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import safetensors.torch
import torch
from torch import Tensor

from .taps import SiteTensors

Storage = Literal["memory", "disk", "recompute"]
STORAGES: tuple[Storage, ...] = ("memory", "disk", "recompute")

AGAIN = "Capture again: change any input of the Capture node, or restart ComfyUI."


def bytes_of(tensors: SiteTensors) -> int:
    """What tensors take, in bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


class Store(Protocol):
    """Captured steps, wherever they are."""

    def tensors(self, step: int) -> SiteTensors: ...

    def require(self, step: int) -> None: ...

    @property
    def nbytes(self) -> int: ...


class MemoryStore(tuple[SiteTensors, ...]):
    """Per step, the tensors of its sites one after the other. A tuple, so that the host's cache counts it."""

    __slots__ = ()

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step."""
        return self[step]

    def require(self, step: int) -> None:
        """What is in memory is there."""

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(bytes_of(step) for step in self)


class FrameStores(tuple["Store", ...]):
    """Stores of one group of contents (frames) after the other, read as one."""

    __slots__ = ()

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step, of all the contents."""
        return tuple(_cat(parts) for parts in zip(*(store.tensors(step) for store in self), strict=True))

    def require(self, step: int) -> None:
        """Raises ValueError when a file of this step is gone or has another size. Nothing is read."""
        for store in self:
            store.require(step)

    @property
    def nbytes(self) -> int:
        """Memory or disk used, in bytes."""
        return sum(store.nbytes for store in self)


class SomeFrames(NamedTuple):
    """Some of the contents (frames) of a store, from ``start`` to before ``stop``."""

    store: Store
    start: int
    stop: int

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step, of these contents."""
        return tuple(t[self.start : self.stop] for t in self.store.tensors(step))

    def require(self, step: int) -> None:
        """As the store's own."""
        self.store.require(step)

    @property
    def nbytes(self) -> int:
        """What the store uses, in bytes."""
        return self.store.nbytes


def _cat(parts: tuple[Tensor, ...]) -> Tensor:
    """One after the other; fp16 beside bf16, where one of them exceeds fp16, in fp32."""
    wide = reduce(torch.promote_types, (part.dtype for part in parts))
    return torch.cat([part.to(wide) for part in parts])


class _Written(NamedTuple):
    """What a step's file must be when it is read again."""

    size: int
    sha256: bytes


class DiskStore:
    """Per step, one safetensors file in a folder of its own, which goes when the store goes.

    Files are read whole, one step at a time, and never mapped into memory: a file that is cut while its tensors are
    in use would end the process. A step that is not byte for byte what was written is refused.
    """

    def __init__(self, folder: Path, steps: Iterable[SiteTensors]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=False)
        except OSError as error:
            raise ValueError(
                f"storage: no folder for the capture could be made at {folder} ({error}). "
                "Choose memory or recompute, or start ComfyUI with another --temp-directory."
            ) from error
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder
        self._nbytes = 0
        self._written: list[_Written] = []
        try:
            for tensors in steps:
                self._written.append(self._write(len(self._written), tensors))
                self._nbytes += bytes_of(tensors)
        except BaseException:
            self._finalizer()
            raise

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors written."""
        return self._nbytes

    def __copy__(self) -> DiskStore:
        """The store itself: nothing in it changes, and its files go with the last one who holds it."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> DiskStore:
        """The store itself, as for a plain copy."""
        return self

    def _file(self, step: int) -> Path:
        return self.folder / f"step_{step:04d}.safetensors"

    def _write(self, step: int, tensors: SiteTensors) -> _Written:
        data = safetensors.torch.save({f"{j:03d}": t.contiguous() for j, t in enumerate(tensors)})
        try:
            self._file(step).write_bytes(data)
        except OSError as error:
            raise ValueError(
                f"storage: step {step} of the capture could not be written to {self.folder} ({error}). "
                "Free some space, capture fewer layers or steps, or choose memory or recompute."
            ) from error
        return _Written(len(data), hashlib.sha256(data).digest())

    def require(self, step: int) -> None:
        """Raises ValueError when the file of a step is gone or has another size. Nothing is read."""
        file, size = self._file(step), self._written[step].size
        if not file.is_file():
            raise ValueError(
                f"features: the captured step {step} is no longer on disk (temporary files were cleaned). {AGAIN}"
            )
        if (found := file.stat().st_size) != size:
            raise _other(step, f"its file has {found} bytes instead of {size}")

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step, read from its file.

        Raises ValueError when the file is gone, cannot be read, or is not the one that was written.
        """
        self.require(step)
        try:
            data = self._file(step).read_bytes()
        except OSError as error:
            raise ValueError(f"features: the captured step {step} cannot be read ({error}). {AGAIN}") from error
        if hashlib.sha256(data).digest() != self._written[step].sha256:
            raise _other(step, "its contents have changed")
        named = safetensors.torch.load(data)
        return tuple(named[name] for name in sorted(named))


def _other(step: int, what: str) -> ValueError:
    return ValueError(
        f"features: step {step} of the capture is damaged or not the one that was written ({what}). {AGAIN}"
    )
