"""Where captured steps are kept: in memory or in files, one step at a time (method.md section 3)."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .taps import SiteTensors

Storage = Literal["memory", "disk", "recompute"]
STORAGES: tuple[Storage, ...] = ("memory", "disk", "recompute")


class MemoryStore(tuple[SiteTensors, ...]):
    """Per step, the tensors of its sites one after the other. A tuple, so that the host's cache counts it."""

    __slots__ = ()

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step."""
        return self[step]

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(t.numel() * t.element_size() for step in self for t in step)


class DiskStore:
    """Per step, one safetensors file in a folder of its own, which goes when the store goes.

    Tensors are read back one step at a time.
    """

    def __init__(self, folder: Path, steps: Iterable[SiteTensors]) -> None:
        folder.mkdir(parents=True, exist_ok=False)
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder
        self.nbytes = 0
        try:
            for i, tensors in enumerate(steps):
                self._write(i, tensors)
                self.nbytes += sum(t.numel() * t.element_size() for t in tensors)
        except BaseException:
            self._finalizer()
            raise

    def _file(self, step: int) -> Path:
        return self.folder / f"step_{step:04d}.safetensors"

    def _write(self, step: int, tensors: SiteTensors) -> None:
        named = {f"{j:03d}": t.contiguous() for j, t in enumerate(tensors)}
        try:
            safetensors.torch.save_file(named, self._file(step))
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"storage: step {step} of the capture could not be written to {self.folder} ({error}). "
                "Free some space, capture fewer layers or steps, or choose memory or recompute."
            ) from error

    def require(self, step: int) -> None:
        """Raises ValueError when the file of a step is gone."""
        if not self._file(step).is_file():
            raise ValueError(
                f"features: the captured step {step} is no longer on disk (temporary files were cleaned). "
                "Capture again: change any input of the Capture node, or restart ComfyUI."
            )

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step, read from its file. Raises ValueError when the file is gone."""
        self.require(step)
        named = safetensors.torch.load_file(self._file(step))
        return tuple(named[name] for name in sorted(named))


def keeper(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """How captured tensors are kept: a CPU copy in ``dtype``."""

    def keep(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device="cpu", dtype=dtype, copy=True)

    return keep
