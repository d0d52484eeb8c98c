"""A LoRA's part of a linear layer's output: of one LoRA, or of several, each on its rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AddedLowRank(NamedTuple):
    """scale * up @ down of a linear layer. down: [rank, in]. up: [out, rank]."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Of the change."""
        return self.down.shape[0]

    def is_same(self, other: AddedLowRank) -> bool:
        """Whether the two change a layer by the same matrices."""
        return self.down is other.down and self.up is other.up and self.scale == other.scale


class Factors:
    """LoRAs' matrices as a run needs them: on its device, in its number format, each made once.

    It holds them as long as it lives: for one run.
    """

    def __init__(self) -> None:
        self._one: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._several: dict[tuple[int, ...], tuple[tuple[float, ...], Tensor, Tensor]] = {}

    def add(self, out: Tensor, x: Tensor, parts: Sequence[AddedLowRank]) -> None:
        """out += scale x down^T up^T in place, two matrix products for all parts.

        out: [B, ..., out], contiguous. x: [B, ..., in]. parts: of each of as many equal chunks of the rows, of one
        rank; neighbours may be the same.
        """
        if all(part.is_same(parts[0]) for part in parts):
            down, up = self._there(parts[0].down, x), self._there(parts[0].up, out)
            inner = torch.mm(x.reshape(-1, x.shape[-1]), down)
            out.view(-1, out.shape[-1]).addmm_(inner, up, alpha=parts[0].scale)
        else:
            down, up, scale = self._stacked(parts, x, out)
            inner = torch.bmm(x.reshape(len(parts), -1, x.shape[-1]), down)
            out.view(len(parts), -1, out.shape[-1]).baddbmm_(inner, up, alpha=scale)

    def _there(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The matrix, transposed, on the device of ``like`` and in its number format."""
        key = id(matrix), like.device, like.dtype
        if key not in self._one:
            self._one[key] = matrix, matrix.to(like.device, like.dtype).t()  # the matrix is kept: its id is the key
        return self._one[key][1]

    def _stacked(self, parts: Sequence[AddedLowRank], x: Tensor, out: Tensor) -> tuple[Tensor, Tensor, float]:
        """down [N, in, rank], up [N, rank, out] and what is left to multiply with."""
        scales = tuple(part.scale for part in parts)
        one = scales[0] if all(scale == scales[0] for scale in scales) else 1.0
        left = tuple(1.0 if one == scale else scale for scale in scales)
        key = tuple(id(matrix) for part in parts for matrix in part[:2])
        known = self._several.get(key)
        if known is None or known[0] != left or (known[2].device, known[2].dtype) != (out.device, out.dtype):
            down = torch.stack([self._there(part.down, x) for part in parts])
            up = torch.stack([self._there(part.up, out) * s for part, s in zip(parts, left, strict=True)])
            known = self._several[key] = left, down, up
        return known[1], known[2], one
