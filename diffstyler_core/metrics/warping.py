"""Frames of a clip, each laid over the one before it: warping by optical flow, what both see, and what is left over.

Frames are [H, W, 3] with values 0..1, a flow is [H, W, 2] in pixels (right, down): what frame t shows at (x, y), the
next shows at (x, y) + flow(x, y). Everything is computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .available import NotAvailable

SLOPE, SLACK = 0.01, 0.5
"""How far a way there and back may miss: less than SLOPE (|there|^2 + |back|^2) + SLACK, in square pixels."""


class Difference(NamedTuple):
    """How much a frame differs from the next one warped onto it, over pixels and channels.

    absolute: the mean difference. square: the mean squared difference, E_warp of Lai et al. 2018 ("Learning Blind Video
    Temporal Consistency", arXiv 1808.00449, eq. 12). Both 0..1; lower: steadier.
    """

    absolute: float
    square: float


def warp(picture: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """(picture [H, W, C] read at each pixel's place + flow, bilinear; where [H, W] that place lies in the picture)."""
    if picture.ndim != 3 or flow.shape != (*picture.shape[:2], 2):
        raise ValueError(
            f"a picture [H, W, C] and its flow [H, W, 2] are expected, "
            f"got {list(picture.shape)} and {list(flow.shape)}."
        )
    height, width = picture.shape[:2]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([columns, rows], -1).double() + flow.double()
    last = torch.tensor([width - 1, height - 1], dtype=torch.float64)
    inside = ((place >= 0) & (place <= last)).all(-1)
    grid = 2.0 * place / last.clamp(min=1.0) - 1.0
    planes = picture.double().movedim(-1, 0)[None]
    read = functional.grid_sample(planes, grid[None], "bilinear", "border", align_corners=True)
    return read[0].movedim(0, -1), inside


def seen_in_both(there: Tensor, back: Tensor) -> Tensor:
    """Where [H, W] what frame t shows is in the next one too, by flows there and back.

    |w + w_b|^2 < 0.01 (|w|^2 + |w_b|^2) + 0.5, with w_b read where w leads (Sundaram et al. 2010, "Dense Point
    Trajectories by GPU-Accelerated Large Displacement Optical Flow", eq. 5); false where w leads out of the picture.
    """
    returned, inside = warp(back, there)
    there = there.double()
    miss = (there + returned).square().sum(-1)
    return inside & (miss < SLOPE * (there.square() + returned.square()).sum(-1) + SLACK)


def warped_difference(frame: Tensor, following: Tensor, flow: Tensor, seen: Tensor) -> Difference:
    """A frame against the next one, warped onto it, where both see the same. Raises NotAvailable where nothing is."""
    if not seen.any():
        raise NotAvailable("no pixel of it is found again in the next frame")
    warped, _ = warp(following, flow)
    left = (warped - frame.double())[seen]
    return Difference(left.abs().mean().item(), left.square().mean().item())
