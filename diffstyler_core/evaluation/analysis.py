"""What the papers look at in features: principal components (2026, fig. 3) and cosine similarity (2026, table 1)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

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
    _require_finite(vectors)
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
    _require_finite(feature)
    _require_finite(other)
    a, b = feature.double(), other.double()
    return Similarity(_cosine(a, b).mean().item(), _cosine(a.flatten()[None], b.flatten()[None]).item())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines along dimension 1."""
    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosine = ((a * b).sum(1) / torch.where(lengths == 0, 1.0, lengths)).clamp(-1.0, 1.0)
    return torch.where((a == b).all(1), 1.0, cosine)


def _require_finite(tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise ValueError(
            "the features hold values that are not finite (NaN or infinity): the model overflowed. "
            "Start ComfyUI with --fp32-unet, or check the model and its LoRA."
        )


def nearest_step(timesteps: Sequence[int], t: int, table: int = 1000) -> int:
    """The step whose timestep is nearest to t; of two, the noisier one.

    Raises ValueError when t is no training timestep.
    """
    if not 0 <= t < table:
        raise ValueError(f"timestep must lie in 0..{table - 1}, got {t}: 0 is the picture, the paper looks at 540.")
    return min(range(len(timesteps)), key=lambda step: abs(timesteps[step] - t))


def distance(z: Tensor, reference: Tensor) -> float:
    """||z - reference|| / ||reference||, in float64. Raises ValueError when the shapes differ."""
    if z.shape != reference.shape:
        raise ValueError(f"a distance needs equal shapes, got {list(z.shape)} and {list(reference.shape)}.")
    a, b = z.double().cpu(), reference.double().cpu()
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV: commas, quotes where needed, one line each, numbers with 9 digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return out.getvalue()
