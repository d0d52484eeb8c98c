"""Structural similarity by torchmetrics, whole or where a mask is."""

from __future__ import annotations

from torch import Tensor

from .available import NotAvailable
from .packages import metric_module
from .pixels import inner, require_alike, weighted_mean

WINDOW = 5
"""Pixels to each side of SSIM's Gaussian window (11 x 11, deviation 1.5)."""


def ssim(picture: Tensor, reference: Tensor, weight: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean of the colour channels, -1..1. Higher is closer.

    Pictures [H, W, 3] in 0..1, weight [H, W]. Only windows that lie wholly in the region count, as in scikit-image.
    Raises ValueError for shapes that differ, NotAvailable where no 11 x 11 pixels lie in the region.
    """
    require_alike(picture, reference, weight)
    counted = inner(weight.float(), WINDOW)
    if not counted.any():
        raise NotAvailable("the region holds no 11 x 11 pixels")
    measure = metric_module("torchmetrics.functional.image.ssim").structural_similarity_index_measure
    a, b = (x.float().movedim(-1, 0)[None] for x in (picture, reference))
    similar = measure(a, b, data_range=1.0, return_full_image=True)[1][0]  # [3, H, W], its edge from mirrored pixels
    return weighted_mean(similar[:, WINDOW:-WINDOW, WINDOW:-WINDOW].mean(0), counted)
