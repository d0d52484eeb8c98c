"""Distance of two pictures' textures by Gram matrices: of a fixed bank of filters, or of any network's features.

A Gram matrix says which features occur together, wherever they are (Gatys et al. 2016, eq. 3). The filter bank needs
no weights, so its figure is always there; it is not that of a VGG network, and the two are not to be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .available import NotAvailable
from .pixels import inner

SCALES = 4
"""Scales 1, 2, 4, 8: the picture, and its means over squares of that many pixels."""
RADIUS = 3
"""Pixels to each side that a filter reaches, at its scale. Its Gaussian has deviation 1."""
TURNS = 8
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
"""Brightness, red against green, yellow against blue."""


def gram(features: Tensor, weight: Tensor) -> Tensor:
    """[C, C]: the weighted mean over pixels of f f^T, of features [C, h, w] and a weight [h, w]; float64."""
    w = weight.double().flatten()
    if w.sum() <= 0:
        raise NotAvailable("the region is too small for the features")
    f = features.double().flatten(1)
    return (f * (w / w.sum())) @ f.T


def gram_distance(grams: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> float:
    """Mean over layers of ||G - H|| / (||G|| + ||H||) (Frobenius), 0..1. Lower is closer.

    The division makes layers count alike, however strong their features are; two zero matrices are equal. Layers that
    one of the two lacks (None) are left out. Raises NotAvailable where none is left.
    """
    distances = []
    for g, h in zip(grams, others, strict=True):
        if g is not None and h is not None:
            length = (g.norm() + h.norm()).item()
            distances.append((g - h).norm().item() / length if length > 0 else 0.0)
    if not distances:
        raise NotAvailable("the region is too small for the features")
    return sum(distances) / len(distances)


def filter_grams(picture: Tensor, weight: Tensor) -> list[Tensor | None]:
    """Four [24, 24] of a picture [H, W, 3] with weight [H, W]; None at scales where no filter lies in the region."""
    found: list[Tensor | None] = []
    x, w = _opponent(picture), weight.double()
    for scale in range(SCALES):
        if scale:
            x, w = (functional.avg_pool2d(v[None], 2)[0] if min(v.shape[-2:]) > 1 else v[..., :0] for v in (x, w[None]))
            w = w[0]
        counted = inner(w, RADIUS)
        found.append(gram(rectified_derivatives(x), counted) if counted.sum() > 0 else None)
    return found


def rectified_derivatives(channels: Tensor) -> Tensor:
    """[C, H, W] -> [8 C, H - 6, W - 6]: Gaussian derivatives in 8 directions, their positive parts.

    A derivative in any direction is a sum of those across and down (Freeman and Adelson 1991): two filters do.
    """
    at = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=channels.device)
    bell = torch.exp(-0.5 * at.square())
    bell = bell / bell.sum()
    slope = at * bell
    slope = slope / (slope * at).sum()  # a ramp of slope 1 answers 1
    across, down = (_separable(channels, down, across) for down, across in ((bell, slope), (slope, bell)))
    angles = [2 * math.pi * i / TURNS for i in range(TURNS)]
    turned = torch.stack([math.cos(t) * across + math.sin(t) * down for t in angles])
    return turned.clamp(min=0.0).flatten(0, 1)


def _separable(channels: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """[C, H, W] -> [C, H - 6, W - 6]: one filter along columns, one along rows."""
    return functional.conv2d(
        functional.conv2d(channels.double()[:, None], down[None, None, :, None]), across[None, None, None]
    )[:, 0]


def _opponent(picture: Tensor) -> Tensor:
    """[H, W, 3] -> [3, H, W], float64."""
    x = picture.double()
    return (x @ x.new_tensor(OPPONENT).T).movedim(-1, 0)
