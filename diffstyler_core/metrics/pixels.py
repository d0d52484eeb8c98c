"""Figures of two pictures pixel by pixel: PSNR, L2, total variation, agreement of edges. Whole, or where a mask is.

Pictures are [H, W, 3] with values 0..1, weights [H, W] with values 0..1; everything is computed in float64. A pixel
counts as much as its weight; a figure that looks at neighbourhoods counts each as much as its least weight, so that
nothing outside a region is looked at: with a rectangle of ones a figure is that of the cropped pictures.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .available import NotAvailable

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601: brightness of an RGB pixel."""
SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def decibels(mean_square: float, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio of a mean squared difference, 10 log10(peak^2 / it), in dB; inf for none."""
    return math.inf if mean_square == 0 else 10.0 * math.log10(max(peak, 1e-12) ** 2 / mean_square)


def latent_psnr(reference: Tensor, other: Tensor) -> float:
    """PSNR of two latents of one shape, in dB, the peak being the reference's own range.

    Raises ValueError when the shapes differ.
    """
    if reference.shape != other.shape:
        raise ValueError(f"PSNR needs equal shapes, got {tuple(reference.shape)} and {tuple(other.shape)}.")
    a, b = reference.double(), other.double().to(reference.device)
    return decibels((a - b).square().mean().item(), (a.max() - a.min()).item())


def weighted_mean(values: Tensor, weight: Tensor) -> float:
    """Mean of values [h, w] by weight [h, w]. Raises NotAvailable where all weights are zero."""
    total = weight.double().sum()
    if total <= 0:
        raise NotAvailable("no pixel of the region has its whole neighbourhood inside it")
    return ((values.double() * weight.double()).sum() / total).item()


def inner(weight: Tensor, radius: int) -> Tensor:
    """The least weight in each square of 2 radius + 1 pixels that lies in the picture.

    [H, W] -> [H - 2 radius, W - 2 radius]; empty where the picture is smaller than that.
    """
    if min(weight.shape) < 2 * radius + 1:
        return weight.new_zeros(max(0, weight.shape[0] - 2 * radius), max(0, weight.shape[1] - 2 * radius))
    return -functional.max_pool2d(-weight[None, None], 2 * radius + 1, 1)[0, 0]


def psnr(picture: Tensor, reference: Tensor, weight: Tensor) -> float:
    """Peak signal-to-noise ratio, -10 log10(mean squared difference), in dB; the peak is 1. Higher is closer.

    inf for equal pictures. Raises ValueError for shapes that differ, NotAvailable for an empty region.
    """
    return decibels(mean_square(picture, reference, weight))


def rms(picture: Tensor, reference: Tensor, weight: Tensor) -> float:
    """L2 distance per value, sqrt(mean squared difference), 0..1. Lower is closer.

    Raises ValueError for shapes that differ, NotAvailable for an empty region.
    """
    return math.sqrt(mean_square(picture, reference, weight))


def mean_square(picture: Tensor, reference: Tensor, weight: Tensor) -> float:
    """Mean of (picture - reference)^2 over channels and weighted pixels."""
    require_alike(picture, reference, weight)
    return weighted_mean((picture.double() - reference.double()).square().mean(-1), weight)


def total_variation(picture: Tensor, weight: Tensor) -> float:
    """Anisotropic total variation (Rudin, Osher, Fatemi 1992, its discrete L1 form), 0..2; no direction is better.

    Mean |x(i, j+1) - x(i, j)| over neighbours to the right plus the same over neighbours below, mean of the channels.
    Raises NotAvailable for a region without neighbours.
    """
    require_alike(picture, picture, weight)
    x = picture.double()
    right = weighted_mean((x[:, 1:] - x[:, :-1]).abs().mean(-1), torch.minimum(weight[:, 1:], weight[:, :-1]))
    below = weighted_mean((x[1:] - x[:-1]).abs().mean(-1), torch.minimum(weight[1:], weight[:-1]))
    return right + below


def gradient_correlation(picture: Tensor, reference: Tensor, weight: Tensor) -> float:
    """Pearson correlation of the two pictures' edge strengths, -1..1. Higher: edges in the same places.

    Edge strength is the length of the Sobel gradient of luma. Brightness and contrast of a whole picture change
    nothing. Raises ValueError for shapes that differ; NotAvailable where the region has no edges in one of them, or
    no 3 x 3 pixels.
    """
    require_alike(picture, reference, weight)
    w = inner(weight.double(), 1)
    if not w.any():
        raise NotAvailable("the region holds no 3 x 3 pixels")
    a, b = (edge_strength(x) for x in (picture, reference))
    a, b = a - weighted_mean(a, w), b - weighted_mean(b, w)
    spread = math.sqrt(weighted_mean(a * a, w) * weighted_mean(b * b, w))
    if spread <= 1e-12:
        raise NotAvailable("one of the pictures has the same edge strength everywhere in the region")
    return max(-1.0, min(1.0, weighted_mean(a * b, w) / spread))


def edge_strength(picture: Tensor) -> Tensor:
    """[H, W, 3] -> [H - 2, W - 2]: length of the Sobel gradient of luma, 0..sqrt(32)."""
    luma = picture.double() @ torch.tensor(LUMA, dtype=torch.float64, device=picture.device)
    kernel = torch.tensor(SOBEL, dtype=torch.float64, device=picture.device)
    found = functional.conv2d(luma[None, None], torch.stack([kernel, kernel.T])[:, None])[0]
    return found.norm(dim=0)


def require_alike(picture: Tensor, reference: Tensor, weight: Tensor) -> None:
    """Raises ValueError unless both pictures are [H, W, 3] of one size, and the weight is [H, W] of that size."""
    if picture.shape != reference.shape or picture.ndim != 3 or picture.shape[:2] != weight.shape:
        raise ValueError(
            f"pictures [H, W, 3] of one size and a weight [H, W] are expected, got {list(picture.shape)}, "
            f"{list(reference.shape)} and {list(weight.shape)}. Resize them first."
        )
