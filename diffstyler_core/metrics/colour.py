"""Distance of two pictures' colours, wherever in the picture they are: sliced Wasserstein in CIELAB.

The pictures may have different sizes; nothing is random. Everything is computed in float64.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .available import NotAvailable

LEVELS = 1024
"""Quantiles at which two distributions along a direction are compared: (i + 0.5) / 1024."""
MOST = 256 * 256
"""About how many pixels are looked at: of larger pictures every k-th row and column."""


def lab(picture: Tensor) -> Tensor:
    """sRGB [..., 3] in 0..1 -> CIELAB (D65) [..., 3]: L 0..100, a and b about -100..100. 1 is just noticeable."""
    from kornia.color import rgb_to_lab

    colours = picture.double().reshape(-1, 3).T[:, None]  # [3, 1, N], as a picture one pixel high
    return rgb_to_lab(colours)[:, 0].T.reshape(picture.shape)


def directions() -> Tensor:
    """[31, 3] unit vectors: the axes of an icosahedron through its 6 corner, 10 face and 15 edge pairs.

    Their squares sum to 31/3 in every direction, so a shift of all colours weighs the same whichever way it goes.
    """
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, s, t * golden) for s, t in itertools.product((1.0, -1.0), repeat=2)]
    corners = [(p[i], p[(i + 1) % 3], p[(i + 2) % 3]) for p in corners for i in range(3)]
    points = torch.tensor(corners, dtype=torch.float64)
    near = torch.cdist(points, points) < 2.01
    sums = [*points]
    for count in (2, 3):
        sums += [
            points[list(chosen)].sum(0)
            for chosen in itertools.combinations(range(12), count)
            if all(near[i, j] for i, j in itertools.combinations(chosen, 2))
        ]
    axes = torch.nn.functional.normalize(torch.stack(sums), dim=1)
    upper = [a for a in axes if next(v for v in a.flip(0).tolist() if abs(v) > 1e-9) > 0]
    return torch.stack(upper)


def colour_distance(quantiles: Tensor, others: Tensor) -> float:
    """Sliced 2-Wasserstein distance of two pictures' colours in CIELAB, times sqrt(3). 0 or more; lower is closer.

    sqrt(3 mean over the 31 directions and 1024 quantiles of (q - q')^2) (Bonneel et al. 2015, with fixed directions).
    The factor makes it the length of the shift, in delta E (1976), where all colours shift alike.
    Both are ``colour_quantiles`` [31, 1024] of a picture.
    """
    return math.sqrt(3.0 * (quantiles - others).square().mean().item())


def colour_quantiles(picture: Tensor, weight: Tensor) -> Tensor:
    """[31, 1024]: quantiles of the colours along each direction, a pixel counting as much as its weight.

    picture: [H, W, 3] in 0..1, weight: [H, W]. Raises NotAvailable for an empty region.
    """
    step = max(1, math.isqrt(max(1, weight.numel() // MOST)))
    w = weight[::step, ::step].flatten().double()
    kept = w > 0
    if not kept.any():
        raise NotAvailable("the region is empty")
    colours = lab(picture[::step, ::step]).flatten(0, 1)[kept]
    along, order = (directions().to(colours) @ colours.T).sort(dim=1)  # [31, N]
    filled = w[kept][order].cumsum(1)
    at = (torch.arange(LEVELS, dtype=torch.float64, device=w.device) + 0.5) / LEVELS
    index = torch.searchsorted(filled, filled[:, -1:] * at).clamp(max=along.shape[1] - 1)
    return along.gather(1, index)
