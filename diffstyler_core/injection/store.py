"""Where captured steps are kept, one step at a time: in memory, or as files in ``disk.py`` (method.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from .blocks import Room, in_room
from .taps import SiteTensors

Storage = Literal["memory", "disk", "recompute"]
STORAGES: tuple[Storage, ...] = ("memory", "disk", "recompute")


def bytes_of(tensors: SiteTensors) -> int:
    """What tensors take, in bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


class Store(Protocol):
    """Captured steps, wherever they are. which: of a step's tensors the numbers, ascending; None: all of them.

    in_memory: whether the tensors that it hands out are its own, so that nothing is gained by asking early.
    room: where tensors that are handed out have their memory, which are copies then; None: wherever they are.
    sizes_at: bytes of each tensor that is made on the way to a copy. frames: of how many contents.
    dtype: the number format that they are kept in, but for single ones.
    """

    @property
    def in_memory(self) -> bool: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def frames(self) -> int: ...

    def tensors(self, step: int, which: Sequence[int] | None = None, room: Room | None = None) -> SiteTensors: ...

    def sizes_at(self, step: int, which: Sequence[int] | None = None) -> tuple[int, ...]: ...

    def require(self, step: int) -> None: ...

    @property
    def nbytes(self) -> int: ...


class MemoryStore(tuple[SiteTensors, ...]):
    """Per step, the tensors of its sites one after the other. A tuple, so that the host's cache counts it."""

    __slots__ = ()
    in_memory = True

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the first tensor."""
        return self[0][0].dtype

    @property
    def frames(self) -> int:
        """Of how many contents its tensors are."""
        return len(self[0][0])

    def tensors(self, step: int, which: Sequence[int] | None = None, room: Room | None = None) -> SiteTensors:
        """The flat tensors of one step."""
        own = self[step] if which is None else tuple(self[step][i] for i in which)
        return own if room is None else tuple(in_room(tensor, room) for tensor in own)

    def sizes_at(self, step: int, which: Sequence[int] | None = None) -> tuple[int, ...]:
        """Bytes of each tensor of one step."""
        return tuple(tensor.nbytes for tensor in self.tensors(step, which))

    def require(self, step: int) -> None:
        """What is in memory is there."""

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(bytes_of(step) for step in self)


class FrameStores(tuple["Store", ...]):
    """Stores of one group of contents (frames) after the other, read as one."""

    __slots__ = ()
    in_memory = False

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the first store's first tensor."""
        return self[0].dtype

    @property
    def frames(self) -> int:
        """Of how many contents all its stores are."""
        return sum(store.frames for store in self)

    def tensors(self, step: int, which: Sequence[int] | None = None, room: Room | None = None) -> SiteTensors:
        """The flat tensors of one step, of all the contents: copies that are made for the caller."""
        joined = (_cat(parts) for parts in zip(*(store.tensors(step, which) for store in self), strict=True))
        return tuple(tensor if room is None else in_room(tensor, room) for tensor in joined)

    def sizes_at(self, step: int, which: Sequence[int] | None = None) -> tuple[int, ...]:
        """Bytes of each store's tensors of one step, then of each of the joined ones."""
        parts = [store.sizes_at(step, which) for store in self]
        return (*chain.from_iterable(parts), *map(sum, zip(*parts, strict=True)))

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

    @property
    def in_memory(self) -> bool:
        """As the store's own."""
        return self.store.in_memory

    @property
    def dtype(self) -> torch.dtype:
        """As the store's own."""
        return self.store.dtype

    @property
    def frames(self) -> int:
        """How many of the store's contents these are."""
        return self.stop - self.start

    def tensors(self, step: int, which: Sequence[int] | None = None, room: Room | None = None) -> SiteTensors:
        """The flat tensors of one step, of these contents."""
        whole = self.store.tensors(step, which, None if self.in_memory else room)
        some = tuple(tensor[self.start : self.stop] for tensor in whole)
        return tuple(in_room(tensor, room) for tensor in some) if self.in_memory and room is not None else some

    def sizes_at(self, step: int, which: Sequence[int] | None = None) -> tuple[int, ...]:
        """As the store's own: tensors that it reads stay whole for as long as a part of them is held."""
        return self.store.sizes_at(step, which)

    def require(self, step: int) -> None:
        """As the store's own."""
        self.store.require(step)

    @property
    def nbytes(self) -> int:
        """What the store uses, in bytes."""
        return self.store.nbytes


def frames_of(store: Store, start: int, stop: int) -> Store:
    """The store of some of the contents; of a store of groups, only the groups that they are in are read."""
    if not isinstance(store, FrameStores):
        return store if (start, stop) == (0, store.frames) else SomeFrames(store, start, stop)
    parts, begins = [], 0
    for group in store:
        first, last = max(start - begins, 0), min(stop - begins, group.frames)
        if first < last:
            parts.append(frames_of(group, first, last))
        begins += group.frames
    return parts[0] if len(parts) == 1 else FrameStores(parts)


def _cat(parts: tuple[Tensor, ...]) -> Tensor:
    """One after the other; fp16 beside bf16, where one of them exceeds fp16, in fp32."""
    wide = reduce(torch.promote_types, (part.dtype for part in parts))
    return torch.cat([part.to(wide) for part in parts])
