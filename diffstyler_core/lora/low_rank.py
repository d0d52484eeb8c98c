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


class _Stack(NamedTuple):
    """Several parts' matrices in one, the scales that are not common to all in ``up``. The parts are kept alive: their
    matrices' ids are the key."""

    parts: tuple[AddedLowRank, ...]
    left: tuple[float, ...]
    down: Tensor
    up: Tensor


class Factors:
    """LoRAs' matrices as a run needs them: on its device, in its number format, each made once.

    It holds them as long as it lives: for one run.
    """

    def __init__(self) -> None:
        self._one: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._several: dict[tuple[int, ...], _Stack] = {}

    def add(self, out: Tensor, x: Tensor, parts: Sequence[AddedLowRank]) -> None:
        """out += scale x down^T up^T in place, two matrix products for all parts.

        out: [B, ..., out], contiguous. x: [B, ..., in]. parts: of each of as many equal chunks of the rows, of one
        rank; neighbours may be the same.
        """
        parts = _by_group(parts)
        if len(parts) == 1:
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
        if known is None or known.left != left or (known.up.device, known.up.dtype) != (out.device, out.dtype):
            down = torch.stack([part.down.to(x.device, x.dtype).t() for part in parts])
            up = torch.stack([part.up.to(out.device, out.dtype).t() * s for part, s in zip(parts, left, strict=True)])
            known = self._several[key] = _Stack(tuple(parts), left, down, up)
        return known.down, known.up, one


def _by_group(parts: Sequence[AddedLowRank]) -> Sequence[AddedLowRank]:
    """One part for each group of neighbours that are the same, where all groups are of one size."""
    groups = [[parts[0]]]
    for part in parts[1:]:
        if part.is_same(groups[-1][0]):
            groups[-1].append(part)
        else:
            groups.append([part])
    alike = all(len(group) == len(groups[0]) for group in groups)
    return [group[0] for group in groups] if alike else parts
