"""Memory in blocks that tensors share, for allocators that take the next power of two for each of their allocations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Room = Callable[[int], Tensor]
"""Memory of so many bytes, uint8 [bytes]."""

BLOCK = 1 << 24
"""Bytes of a block; a larger tensor has one of its own."""
ALIGNED = 256


def plain_room(nbytes: int) -> Tensor:
    """Memory of its own."""
    return torch.empty(nbytes, dtype=torch.uint8)


def in_room(tensor: Tensor, room: Room) -> Tensor:
    """A copy there."""
    return room(tensor.nbytes).view(tensor.dtype).view(tensor.shape).copy_(tensor)


class Blocks:
    """A ``Room`` that gives parts of blocks, one after the other. allocate: where a block comes from."""

    def __init__(self, allocate: Room) -> None:
        self._allocate = allocate
        self._block: Tensor | None = None
        self._used = BLOCK

    def __call__(self, nbytes: int) -> Tensor:
        """The next part that has so many bytes."""
        if nbytes > BLOCK:
            return self._allocate(nbytes)
        if self._block is None or self._used + nbytes > BLOCK:
            self._block, self._used = self._allocate(BLOCK), 0
        part = self._block[self._used : self._used + nbytes]
        self._used += -(-nbytes // ALIGNED) * ALIGNED
        return part


def bytes_in_blocks(sizes: Iterable[int]) -> int:
    """What tensors of these sizes take, from an allocator that takes the next power of two."""
    total, used = 0, BLOCK
    for nbytes in sizes:
        if nbytes > BLOCK:
            total += 1 << (nbytes - 1).bit_length()
            continue
        if used + nbytes > BLOCK:
            total, used = total + BLOCK, 0
        used += -(-nbytes // ALIGNED) * ALIGNED
    return total
