"""How much of a picture each style takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..masks.mask import ROUNDING
from .regions import Regions


class Coverage(NamedTuple):
    """Parts of a picture, 0..1; ``styles`` and ``uncovered`` sum to one.

    styles: mean share of each style, after masks that sum to more than 1 were scaled down.
    uncovered: mean share of no style. overlap: part of the pixels where the masks sum to more than 1.
    """

    styles: tuple[float, ...]
    uncovered: float
    overlap: float


def coverage(regions: Regions, masks: Sequence[Tensor | None]) -> Coverage:
    """What ``regions``, made by ``share`` of these ``masks``, cover; of a clip, over its frames."""
    total = sum((mask for mask in masks if mask is not None), torch.zeros_like(regions.rest))
    return Coverage(
        tuple(regions.styles.double().flatten(1).mean(1).tolist()),
        regions.rest.double().mean().item(),
        (total > 1.0 + ROUNDING).double().mean().item(),
    )
