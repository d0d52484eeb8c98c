"""Frechet distance of two sets of features, as in FID and ArtFID. Where the features come from is not known here."""

from __future__ import annotations

import torch
from torch import Tensor

from .available import NotAvailable


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """FID's distance (Heusel et al. 2017) of features [n, d] and [m, d], squared as is usual; float64. Lower is closer.

    |mu - nu|^2 + tr(S + T - 2 (S T)^(1/2)), S and T with n - 1 and m - 1. With S = A^T A and T = B^T B the last trace
    is the sum of A B^T's singular values: exact also where n < d, as S and T then have no full rank.
    Raises ValueError for shapes that do not fit and values that are not finite, NotAvailable for fewer than two.
    """
    if features.ndim != 2 or others.ndim != 2 or features.shape[1] != others.shape[1]:
        raise ValueError(f"features [n, d] and [m, d] are expected, got {list(features.shape)}, {list(others.shape)}.")
    if min(len(features), len(others)) < 2:
        raise NotAvailable(f"it needs two pictures on each side, got {len(features)} and {len(others)}")
    if not (features.isfinite().all() and others.isfinite().all()):
        raise ValueError("the features hold values that are not finite: the network's weights are damaged.")
    (mean, a), (other_mean, b) = _moments(features), _moments(others)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    distance = (mean - other_mean).square().sum() + a.square().sum() + b.square().sum() - 2 * cross
    return max(0.0, distance.item())


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """(mean [d], A [min(n, d), d] with A^T A the covariance)."""
    x = features.double()
    mean = x.mean(0)
    a = (x - mean) / (len(x) - 1) ** 0.5
    return mean, a if len(a) <= a.shape[1] else torch.linalg.qr(a, mode="r").R


def artfid(lpips: float, fid: float) -> float:
    """ArtFID (Wright and Ommer 2022, eq. 1) = (1 + LPIPS to the content) (1 + FID to the styles). Lower is better."""
    return (1.0 + lpips) * (1.0 + fid)
