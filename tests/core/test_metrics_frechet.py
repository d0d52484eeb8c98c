"""The Frechet distance against its closed forms and torchmetrics' own, and ArtFID."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.metrics.available import NotAvailable
from diffstyler_core.metrics.frechet import artfid, frechet_distance


def normal(seed, n, d):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(x):
    """The same cloud with mean 0 and covariance 1, exactly."""
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (len(x) - 1)).mH)


@pytest.mark.parametrize("n", [40, 6])
def test_gaussians_in_closed_form(seed, n):
    """N(0, diag(s^2)) and N(m, diag(t^2)): |m|^2 + sum (s - t)^2."""
    d = 5
    s, t, m = (torch.rand(d, generator=torch.Generator().manual_seed(seed + i)).double() + 0.1 for i in range(3))
    x, y = whitened(normal(seed, n, d)) * s, whitened(normal(seed + 9, n, d)) * t + m
    expected = (m.square().sum() + (s - t).square().sum()).item()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_turned_gaussians_in_closed_form(seed):
    """In the plane tr (S T)^(1/2) = sqrt(tr(S T) + 2 sqrt(det S det T))."""
    turn = torch.linalg.qr(normal(seed, 2, 2)).Q
    x = whitened(normal(seed, 30, 2)) * torch.tensor([3.0, 1.0])
    y = whitened(normal(seed + 1, 30, 2)) * torch.tensor([0.5, 2.0]) @ turn
    S, T = torch.cov(x.T), torch.cov(y.T)
    root = math.sqrt((S @ T).trace() + 2 * math.sqrt(torch.det(S) * torch.det(T)))
    assert frechet_distance(x, y) == pytest.approx((S.trace() + T.trace()).item() - 2 * root, rel=1e-9)


def test_it_is_torchmetrics_on_the_same_features(seed):
    """The library's class with a network that hands the features through, for more samples than dimensions."""
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Through(torch.nn.Module):
        num_features = 12

        def forward(self, x):
            return x

    x, y = normal(seed, 60, 12), 1.3 * normal(seed + 1, 45, 12) + 0.2
    library = fid.FrechetInceptionDistance(feature=Through())
    library.update(x, real=True)
    library.update(y, real=False)
    assert frechet_distance(x, y) == pytest.approx(library.compute().item(), rel=1e-8)


def test_fewer_pictures_than_features(seed):
    """With n < d the covariances have no full rank; the sum over singular values is still exact."""
    x, y = normal(seed, 7, 50), normal(seed + 1, 9, 50) + 0.1
    S, T = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(S)
    root = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
    trace = torch.linalg.eigvalsh(root @ T @ root).clamp(min=0).sqrt().sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + S.trace() + T.trace() - 2 * trace
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-6)


def test_the_same_set_is_at_zero_in_any_order_and_number(seed):
    x = normal(seed, 20, 30)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(x, x + 2.0) == pytest.approx(30 * 4.0)
    assert frechet_distance(x, 2 * x) == pytest.approx(frechet_distance(2 * x, x))


def test_artfid():
    assert artfid(0.17, 17.85) == pytest.approx(22.06, abs=0.01), "the paper's own figures"
    assert artfid(0.0, 0.0) == 1.0


def test_what_is_refused():
    with pytest.raises(NotAvailable, match="two pictures on each side, got 1 and 3"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"\[2, 4\], \[2, 5\]"):
        frechet_distance(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.full((2, 4), math.nan), torch.zeros(2, 4))
