"""Parts of a result that have figures of their own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

WHOLE, INSIDE, OUTSIDE, LEFT, RIGHT = "whole", "inside", "outside", "left half", "right half"
NAMES = (WHOLE, INSIDE, OUTSIDE, LEFT, RIGHT)


class Region(NamedTuple):
    """Columns of the picture, and a mask [H, W] of the picture where only its part counts."""

    name: str = WHOLE
    columns: slice = slice(None)
    mask: Tensor | None = None

    def of(self, picture: Tensor) -> Tensor:
        """The picture [H, W, 3] in the region's columns."""
        return picture[:, self.columns]

    def weight(self, picture: Tensor) -> Tensor:
        """[H, w]: what each of its pixels counts."""
        part = self.of(picture)
        return torch.ones(part.shape[:2]) if self.mask is None else self.mask[:, self.columns]

    @property
    def emptiness(self) -> str:
        """Why nothing lies in it; '' where something does."""
        if self.mask is None or self.mask.any():
            return ""
        return "the mask is empty" if self.name == INSIDE else "the mask covers everything"


def regions_of(width: int, mask: Tensor | None, halves: bool) -> list[Region]:
    """Whole; inside and outside of a mask; left and right half (the middle column of an odd width is right)."""
    found = [Region()]
    if mask is not None:
        found += [Region(INSIDE, mask=mask), Region(OUTSIDE, mask=1.0 - mask)]
    if halves:
        found += [Region(LEFT, slice(0, width // 2)), Region(RIGHT, slice(width // 2, width))]
    return found
