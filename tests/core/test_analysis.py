"""Principal components against closed forms and numpy's SVD, cosines in closed form, and what is refused."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch

from diffstyler_core.evaluation import components, similarity
from diffstyler_core.evaluation.csv_table import csv_text
from diffstyler_core.evaluation.features import nearest_step


def known(seed: int, rows: int, columns: int, scales: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(vectors [rows, columns] of this rank with exactly these singular values, their true axes)."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, len(scales), generator=generator, dtype=torch.float64)
    scores = torch.linalg.qr(scores - scores.mean(0))[0] * torch.tensor(scales, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(columns, len(scales), generator=generator, dtype=torch.float64))[0].T
    return scores @ axes + torch.randn(columns, generator=generator, dtype=torch.float64), axes


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (40, 40)])
@pytest.mark.parametrize("scales", [(5.0, 3.0, 1.0), (5.0, 3.0, 2.0, 1.0)])
def test_components_of_data_that_is_known(seed, shape, scales):
    vectors, axes = known(seed, *shape, scales)
    found = components.principal_components(vectors)
    assert (found.axes @ axes[:3].T).abs().diagonal().tolist() == pytest.approx([1, 1, 1], abs=1e-9)
    assert torch.allclose(found.axes @ found.axes.T, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert found.shares == pytest.approx([s**2 / sum(x**2 for x in scales) for s in scales[:3]], abs=1e-9)
    assert torch.allclose(found.mean, vectors.mean(0))
    if len(scales) == 3:
        back = found.scores(vectors) @ found.axes + found.mean
        assert torch.allclose(back, vectors, atol=1e-9)


@pytest.mark.parametrize("shape", [(300, 20), (30, 50)])
def test_components_are_those_of_numpys_svd(seed, shape):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * torch.linspace(3, 1, shape[1])
    found = components.principal_components(vectors, 4)
    centred = vectors.double().numpy() - vectors.double().numpy().mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(4), np.abs(axes[:4]).argmax(1)])
    assert np.allclose(found.axes.numpy(), axes[:4] * signs[:, None], atol=1e-7)
    assert found.shares == pytest.approx((singular**2 / (singular**2).sum())[:4], abs=1e-9)


def test_an_ellipse_has_its_axes():
    angle = torch.arange(360, dtype=torch.float64) * math.pi / 180
    points = torch.stack([3 * angle.cos(), angle.sin()], 1) + torch.tensor([10.0, -4.0])
    found = components.principal_components(points)
    assert found.shares == pytest.approx([0.9, 0.1, 0.0])
    assert torch.allclose(found.axes, torch.tensor([[1.0, 0], [0, 1], [0, 0]]).double(), atol=1e-9)
    assert torch.allclose(found.mean, torch.tensor([10.0, -4.0]).double())


def test_signs_do_not_depend_on_the_order_or_on_a_little_noise(seed):
    generator = torch.Generator().manual_seed(seed)
    vectors, _ = known(seed, 300, 16, (9.0, 5.0, 2.0))
    found = components.principal_components(vectors)
    top = found.axes.abs().topk(2, 1).values
    for other in (
        vectors.flip(0),
        vectors[torch.randperm(300, generator=generator)],
        2 * vectors.mean(0) - vectors,  # mirrored data has the same axes, and the same signs
        torch.cat([vectors, vectors]),
    ):
        again = components.principal_components(other)
        assert torch.allclose(again.axes, found.axes, atol=1e-7)
    noisy = vectors + 1e-7 * torch.randn(vectors.shape, generator=generator)
    clear = (top[:, 0] - top[:, 1]) > 1e-4  # with two entries of one size the largest is a matter of luck
    assert torch.allclose(components.principal_components(noisy).axes[clear], found.axes[clear], atol=1e-4)
    rows = found.axes.gather(1, found.axes.abs().argmax(1, keepdim=True))
    assert (rows > 0).all()


def test_data_without_variance_has_no_components():
    found = components.principal_components(torch.ones(5, 4))
    assert found.shares == (0.0, 0.0, 0.0)
    assert not found.axes.any()
    (grey,) = components.colours([found.scores(torch.ones(5, 4))])
    assert torch.equal(grey, torch.full((5, 3), 0.5))


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (torch.ones(1, 4), "[1, 4]"),
        (torch.ones(4), "[4]"),
        (torch.ones(2, 4, 4), "[2, 4, 4]"),
        (torch.full((3, 4), math.nan), "not finite"),
        (torch.full((3, 4), math.inf), "not finite"),
    ],
)
def test_vectors_that_are_refused(vectors, words):
    with pytest.raises(ValueError, match="not finite" if "finite" in words else "at least two vectors") as caught:
        components.principal_components(vectors)
    assert words in str(caught.value)


def test_colours_share_one_range():
    first = torch.stack([torch.linspace(0, 1, 101)] * 3, 1).double()
    second = 1 + first
    a, b = components.colours([first, second], margin=0.0)
    assert torch.allclose(a, (first / 2).float())
    assert torch.allclose(b, (second / 2).float())
    assert a.dtype == torch.float32


def test_outliers_do_not_take_the_contrast():
    scores = torch.linspace(0, 1, 1001).double()[:, None].repeat(1, 3)
    scores[0], scores[-1] = -1000.0, 1000.0
    (a,) = components.colours([scores])
    assert a[500].tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert a[250].tolist() == pytest.approx([0.25] * 3, abs=0.01)
    assert (a.min(), a.max()) == (0, 1)


def feature(*pixels: tuple[float, ...]) -> torch.Tensor:
    """A feature [1, C, 1, W] of these pixels."""
    return torch.tensor(pixels).T[None, :, None, :]


@pytest.mark.parametrize(
    ("a", "b", "pixels", "whole"),
    [
        ([(1, 0), (0, 2)], [(1, 0), (0, 2)], 1.0, 1.0),
        ([(1, 0), (0, 2)], [(3, 0), (0, 6)], 1.0, 1.0),
        ([(1, 0), (0, 2)], [(-1, 0), (0, -2)], -1.0, -1.0),
        ([(1, 0), (0, 2)], [(0, 1), (2, 0)], 0.0, 0.0),
        ([(1, 0), (0, 2)], [(2, 0), (0, 1)], 1.0, 4 / 5),
        ([(1, 0), (0, 3)], [(1, 0), (0, -3)], 0.0, (1 - 9) / 10),
        ([(1, 1), (1, 0)], [(1, 0), (1, 0)], (0.5**0.5 + 1) / 2, 2 / 6**0.5),
        ([(0, 0), (1, 0)], [(0, 0), (1, 0)], 1.0, 1.0),
        ([(0, 0), (1, 0)], [(1, 0), (1, 0)], 0.5, 0.5**0.5),
    ],
)
def test_cosines_in_closed_form(a, b, pixels, whole):
    found = similarity.similarity(feature(*a), feature(*b))
    assert found == pytest.approx((pixels, whole), abs=1e-12)
    assert similarity.similarity(feature(*b), feature(*a)) == pytest.approx(found)


def test_cosines_are_torchs_own_and_exactly_one_for_equal_features(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(1, 33, 5, 7, generator=generator) for _ in range(2))
    pixels = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1).mean().item()
    whole = torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()
    assert similarity.similarity(a, b) == pytest.approx((pixels, whole), abs=1e-12)
    assert similarity.similarity(a, a.clone()) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.ones(1, 4, 2, 2), torch.ones(1, 4, 2, 3), "[1, 4, 2, 3]"),
        (torch.ones(4, 2), torch.ones(4, 2), "[4, 2]"),
        (torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), math.nan), "not finite"),
    ],
)
def test_features_that_are_refused(a, b, words):
    with pytest.raises(ValueError, match=r"not finite|one shape") as caught:
        similarity.similarity(a, b)
    assert words in str(caught.value)


FIFTY = tuple(range(981, 0, -20))


@pytest.mark.parametrize(
    ("timesteps", "t", "step"),
    [(FIFTY, 540, 22), (FIFTY, 999, 0), (FIFTY, 0, 49), (FIFTY, 1, 49), (FIFTY, 551, 21), (FIFTY, 550, 22),
     ((751, 501, 251, 1), 540, 1), ((1,), 999, 0)],
)  # fmt: skip
def test_the_nearest_step(timesteps, t, step):
    assert nearest_step(timesteps, t) == step


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_out_of_range(t):
    with pytest.raises(ValueError, match=rf"timestep must lie in 0\.\.999, got {t}"):
        nearest_step(FIFTY, t)


def test_distances():
    assert similarity.relative_distance(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert similarity.relative_distance(torch.ones(3), torch.ones(3)) == 0.0
    with pytest.raises(ValueError, match=r"\[3\] and \[4\]"):
        similarity.relative_distance(torch.ones(3), torch.ones(4))


def test_a_table_is_read_back():
    text = csv_text(("a", "b, c"), [(1, 0.1234567891), ('with "quotes"', float("inf"))])
    assert list(csv.reader(io.StringIO(text))) == [["a", "b, c"], ["1", "0.123456789"], ['with "quotes"', "inf"]]
