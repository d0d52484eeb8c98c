"""How alike features are (2026, table 1), and how far latents are apart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .features import require_finite


class Similarity(NamedTuple):
    """Cosine similarity of two features: the mean of the cosines pixel by pixel, and of each as one long vector."""

    pixels: float
    whole: float


def similarity(feature: Tensor, other: Tensor) -> Similarity:
    """Cosine similarity (2026, table 1) of two features [1, C, H, W], computed in float64.

    Two zero vectors count as equal, a zero and another one as 0. Raises ValueError when the shapes differ, or for
    values that are not finite.
    """
    if feature.shape != other.shape or feature.ndim != 4:
        raise ValueError(
            f"features of one shape [1, C, H, W] can be compared, got {list(feature.shape)} and {list(other.shape)}."
        )
    require_finite(feature)
    require_finite(other)
    a, b = feature.double(), other.double()
    return Similarity(_cosine(a, b).mean().item(), _cosine(a.flatten()[None], b.flatten()[None]).item())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines along dimension 1."""
    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosine = ((a * b).sum(1) / torch.where(lengths == 0, 1.0, lengths)).clamp(-1.0, 1.0)
    return torch.where((a == b).all(1), 1.0, cosine)


def relative_distance(z: Tensor, reference: Tensor) -> float:
    """||z - reference|| / ||reference||, in float64. Raises ValueError when the shapes differ."""
    if z.shape != reference.shape:
        raise ValueError(f"a distance needs equal shapes, got {list(z.shape)} and {list(reference.shape)}.")
    a, b = z.double().cpu(), reference.double().cpu()
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()
