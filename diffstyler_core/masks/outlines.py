"""Where masks are drawn: lines along their edges, and the place of their number."""

from __future__ import annotations

import torch
from torch import Tensor

from .mask import resize_by_area

COARSE = 128
"""Longest side of the picture in which a region's inmost point is looked for."""


def inner_line(mask: Tensor, width: int) -> Tensor:
    """Pixels of a mask [H, W] bool less than ``width`` + 1 away from one outside it. The picture's border is no edge.

    Distances go by the larger of across and down, so corners of the line are sharp.
    """
    from scipy import ndimage

    square = ndimage.generate_binary_structure(2, 2)
    kept = ndimage.binary_erosion(mask.cpu().numpy(), square, iterations=width, border_value=1)
    return mask & ~torch.from_numpy(kept).to(mask.device)


def outer_line(mask: Tensor, width: int) -> Tensor:
    """The same outside of the mask."""
    return inner_line(~mask, width)


def distance_to_edge(region: Tensor) -> Tensor:
    """Exact Euclidean distance of each pixel of a bool [h, w] to the nearest one outside it or outside the picture."""
    from scipy import ndimage

    padded = torch.nn.functional.pad(region, (1, 1, 1, 1), value=False)
    return torch.from_numpy(ndimage.distance_transform_edt(padded.numpy()))[1:-1, 1:-1]


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
