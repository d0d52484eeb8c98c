"""How much of a picture each style takes, and where its region's number is best written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..masks.mask import ROUNDING, resize_by_area
from .regions import Regions

COARSE = 128
"""Longest side of the picture in which a region's inmost point is looked for."""


class Coverage(NamedTuple):
    """Parts of a picture, 0..1; ``styles`` and ``uncovered`` sum to one.

    styles: mean share of each style, after masks that sum to more than 1 were scaled down.
    uncovered: mean share of no style. overlap: part of the pixels where the masks sum to more than 1.
    """

    styles: tuple[float, ...]
    uncovered: float
    overlap: float


def coverage(regions: Regions, masks: Sequence[Tensor | None]) -> Coverage:
    """What ``regions``, made by ``share`` of these ``masks`` [h, w], cover."""
    total = sum((mask for mask in masks if mask is not None), torch.zeros_like(regions.rest))
    return Coverage(
        tuple(regions.styles.double().mean((1, 2)).tolist()),
        regions.rest.double().mean().item(),
        (total > 1.0 + ROUNDING).double().mean().item(),
    )


def distance_to_edge(region: Tensor) -> Tensor:
    """Exact Euclidean distance of each pixel of a bool [h, w] to the nearest one outside it or outside the picture."""
    padded = torch.nn.functional.pad(region, (1, 1, 1, 1), value=False)
    y, x = (torch.arange(size, dtype=torch.float32) for size in padded.shape)
    blocked = torch.where(padded, torch.inf, 0.0)
    in_row = ((x[:, None] - x[None]) ** 2 + blocked[:, None]).amin(-1)  # [h, w], squared
    squared = ((y[:, None] - y[None]) ** 2 + in_row.T[:, None]).amin(-1)  # [w, h]
    return squared.T.sqrt()[1:-1, 1:-1]


def inmost_point(share: Tensor) -> tuple[float, float] | None:
    """(x, y) in pixels of a share [h, w]: where a disc fits best into the part above half its maximum; None if empty.

    Of several such points, as along the middle line of a band, the one nearest to their mean.
    """
    height, width = share.shape
    shrink = min(1.0, COARSE / max(height, width))
    small = resize_by_area(share, max(1, round(height * shrink)), max(1, round(width * shrink)))
    if not small.any():
        return None
    distance = distance_to_edge(small >= 0.5 * small.max())
    best = torch.nonzero(distance >= distance.max() - 0.5).double()  # rows of (y, x)
    y, x = best[(best - best.mean(0)).square().sum(1).argmin()].tolist()
    return (x + 0.5) * width / small.shape[1], (y + 0.5) * height / small.shape[0]
