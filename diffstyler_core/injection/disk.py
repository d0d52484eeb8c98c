"""Captured steps in files that are read one at a time, in whole or in part, and checked (method.md section 3)."""

from __future__ import annotations

import hashlib
import json
import shutil
import weakref
from collections.abc import Iterable, Sequence
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from .blocks import Room, plain_room
from .store import bytes_of
from .taps import SiteTensors

PASSED_AT_ONCE = 1 << 20
"""Bytes of a file that are read at once where they are only hashed."""
AGAIN = "Capture again: change any input of the Capture node, or restart ComfyUI."


class _Place(NamedTuple):
    """Where in its step's file a tensor is, and what it is."""

    start: int
    dtype: torch.dtype
    shape: torch.Size

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class _Written(NamedTuple):
    """What a step's file must be when it is read again."""

    size: int
    sha256: bytes
    places: tuple[_Place, ...]


class DiskStore:
    """Per step, one safetensors file in a folder of its own, which goes when the store goes.

    Files are read, one step at a time, and never mapped into memory: a file that is cut while its tensors are in use
    would end the process. A step that is not byte for byte what was written is refused, also where only some of its
    tensors are asked for; those alone take memory.
    """

    in_memory = False

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the first tensor."""
        return self._written[0].places[0].dtype

    @property
    def frames(self) -> int:
        """Of how many contents its tensors are."""
        return self._written[0].places[0].shape[0]

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
        named = {f"{j:03d}": t.contiguous() for j, t in enumerate(tensors)}
        data = safetensors.torch.save(named)
        try:
            self._file(step).write_bytes(data)
        except OSError as error:
            raise ValueError(
                f"storage: step {step} of the capture could not be written to {self.folder} ({error}). "
                "Free some space, capture fewer layers or steps, or choose memory or recompute."
            ) from error
        return _Written(len(data), hashlib.sha256(data).digest(), _places(data, named))

    def require(self, step: int) -> None:
        """Raises ValueError when the file of a step is gone or has another size. Nothing is read."""
        file, size = self._file(step), self._written[step].size
        if not file.is_file():
            raise ValueError(
                f"features: the captured step {step} is no longer on disk (temporary files were cleaned). {AGAIN}"
            )
        if (found := file.stat().st_size) != size:
            raise _other(step, f"its file has {found} bytes instead of {size}")

    def tensors(self, step: int, which: Sequence[int] | None = None, room: Room | None = None) -> SiteTensors:
        """The flat tensors of one step, read from its file.

        Raises ValueError when the file is gone, cannot be read, or is not the one that was written.
        """
        self.require(step)
        written = self._written[step]
        try:
            with self._file(step).open("rb", buffering=0) as file:
                reading = _Reading(file)
                tensors = reading.tensors(self._places_of(step, which), room or plain_room)
                reading.pass_over(written.size)
        except OSError as error:
            raise ValueError(f"features: the captured step {step} cannot be read ({error}). {AGAIN}") from error
        if reading.sha256.digest() != written.sha256:
            raise _other(step, "its contents have changed")
        return tensors

    def sizes_at(self, step: int, which: Sequence[int] | None = None) -> tuple[int, ...]:
        """Bytes of each tensor of one step."""
        return tuple(place.nbytes for place in self._places_of(step, which))

    def _places_of(self, step: int, which: Sequence[int] | None) -> tuple[_Place, ...]:
        places = self._written[step].places
        return places if which is None else tuple(places[i] for i in which)


class _Reading:
    """A file from its start to its end: tensors read into their own memory, and the hash of all that went by."""

    def __init__(self, file: FileIO) -> None:
        self._file, self._at, self.sha256 = file, 0, hashlib.sha256()

    def tensors(self, places: Sequence[_Place], room: Room) -> SiteTensors:
        """The tensors at these places, in their order here."""
        found = {}
        for place in sorted(places):
            self.pass_over(place.start)
            raw = room(place.nbytes)
            self._fill(raw.numpy().data)
            found[place] = raw.view(place.dtype).view(place.shape)
        return tuple(found[place] for place in places)

    def pass_over(self, end: int) -> None:
        """Goes on to a place of the file and keeps nothing."""
        passed = memoryview(bytearray(min(PASSED_AT_ONCE, max(end - self._at, 0))))
        while self._at < end and self._fill(passed[: end - self._at]):
            pass

    def _fill(self, into: memoryview) -> int:
        """How many bytes there were; less than asked for only at the end of a file that was cut meanwhile."""
        filled = 0
        while filled < len(into) and (count := self._file.readinto(into[filled:])):
            filled += count
        self.sha256.update(into[:filled])
        self._at += filled
        return filled


def _places(data: bytes, named: dict[str, Tensor]) -> tuple[_Place, ...]:
    """Where safetensors put each tensor, by its header."""
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    return tuple(_Place(start + header[name]["data_offsets"][0], t.dtype, t.shape) for name, t in named.items())


def _other(step: int, what: str) -> ValueError:
    return ValueError(
        f"features: step {step} of the capture is damaged or not the one that was written ({what}). {AGAIN}"
    )
