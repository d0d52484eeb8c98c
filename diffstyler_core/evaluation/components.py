"""Principal components of features, and their colours (2026, fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .features import require_finite

NOTHING = 1e-12
"""A component with less than this share of the variance is rounding, and is taken as zero."""


class Components(NamedTuple):
    """Principal components of vectors of C numbers, the largest first.

    mean: [C]. axes: [k, C], orthonormal, zero rows where the data has fewer dimensions. Both float64.
    shares: each component's part of the variance, 0..1.
    """

    mean: Tensor
    axes: Tensor
    shares: tuple[float, ...]

    def scores(self, vectors: Tensor) -> Tensor:
        """Coordinates [N, k] of vectors [N, C] along the axes, float64."""
        return (vectors.double() - self.mean) @ self.axes.T


def principal_components(vectors: Tensor, count: int = 3) -> Components:
    """PCA of vectors [N, C] in float64. Each axis points to where its largest entry is positive.

    Raises ValueError for another shape, fewer than two vectors, or values that are not finite.
    """
    if vectors.ndim != 2 or vectors.shape[0] < 2 or count < 1:
        raise ValueError(
            f"principal components need at least two vectors [N, C] and one component, got {list(vectors.shape)} and "
            f"{count}. Use a larger picture or a later layer."
        )
    require_finite(vectors)
    mean = vectors.double().mean(0)
    centred = vectors.double() - mean
    values, axes = _eigen(centred)
    total = centred.square().sum().item()
    kept = [i for i in range(min(count, len(values))) if values[i].item() > NOTHING * total]
    found = torch.zeros(count, vectors.shape[1], dtype=torch.float64)
    found[: len(kept)] = _signed(axes[: len(kept)])
    return Components(mean, found, tuple(values[i].item() / total if i in kept else 0.0 for i in range(count)))


def _eigen(centred: Tensor) -> tuple[Tensor, Tensor]:
    """(eigenvalues, eigenvectors in rows [.., C]) of the scatter matrix, largest first, by the smaller Gram matrix."""
    rows, columns = centred.shape
    if columns <= rows:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        return values.flip(0), vectors.flip(1).T
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    return values.flip(0), torch.nn.functional.normalize((centred.T @ vectors).flip(1).T, dim=1)


def _signed(axes: Tensor) -> Tensor:
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return axes * largest.sign()


def colours(scores: Sequence[Tensor], margin: float = 0.01) -> list[Tensor]:
    """Scores [N_i, 3] as RGB in 0..1, each component stretched over the range that all of them have in common.

    margin: part of all values at either end that is cut off, so that single outliers do not take all the contrast.
    A component that does not vary is grey.
    """
    together = torch.cat(list(scores))
    low, high = (torch.quantile(together, q, dim=0) for q in (margin, 1.0 - margin))
    flat = high - low <= 0
    span = torch.where(flat, 1.0, high - low)
    return [torch.where(flat, 0.5, (part - low) / span).clamp(0.0, 1.0).float() for part in scores]
