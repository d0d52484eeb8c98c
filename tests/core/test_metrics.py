"""Figures pixel by pixel: closed forms, invariances, masks that are rectangles, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.metrics import pixels as metrics
from diffstyler_core.metrics.available import NotAvailable

ROWS, COLUMNS = slice(5, 25), slice(8, 30)
PAIRS = (metrics.psnr, metrics.rms, metrics.gradient_correlation)


def noise(seed, height=40, width=48, count=2):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def ones(picture):
    return torch.ones(picture.shape[:2])


def rectangle(picture):
    weight = torch.zeros(picture.shape[:2])
    weight[ROWS, COLUMNS] = 1.0
    return weight


@pytest.mark.parametrize(("shift", "decibels"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0), (0.5, -20 * math.log10(0.5))])
def test_a_shift_of_brightness_in_closed_form(shift, decibels):
    a = torch.zeros(8, 9, 3).double()
    assert metrics.psnr(a + shift, a, ones(a)) == pytest.approx(decibels)
    assert metrics.rms(a + shift, a, ones(a)) == pytest.approx(shift)


def test_equal_pictures(seed):
    a, _ = noise(seed)
    assert metrics.psnr(a, a.clone(), ones(a)) == math.inf
    assert metrics.rms(a, a.clone(), ones(a)) == 0.0
    assert metrics.gradient_correlation(a, a.clone(), ones(a)) == pytest.approx(1.0, abs=1e-12)


def test_psnr_is_scikit_images(seed):
    skimage = pytest.importorskip("skimage.metrics")
    a, b = noise(seed)
    expected = skimage.peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=1.0)
    assert metrics.psnr(a, b, ones(a)) == pytest.approx(expected, abs=1e-9)


def test_total_variation_in_closed_form():
    flat = torch.full((6, 10, 3), 0.3)
    assert metrics.total_variation(flat, ones(flat)) == 0.0
    columns = (torch.arange(10) % 2).double()[None, :, None].expand(6, 10, 3)
    assert metrics.total_variation(columns, ones(flat)) == pytest.approx(1.0)
    board = ((torch.arange(10)[None] + torch.arange(6)[:, None]) % 2).double()[..., None].expand(6, 10, 3)
    assert metrics.total_variation(board, ones(flat)) == pytest.approx(2.0)
    ramp = torch.linspace(0, 0.9, 10).double()[None, :, None].expand(6, 10, 3)
    assert metrics.total_variation(ramp, ones(flat)) == pytest.approx(0.1)


def test_edges_ignore_brightness_contrast_and_its_sign(seed):
    a, b = noise(seed).double()
    plain = metrics.gradient_correlation(a, b, ones(a))
    assert metrics.gradient_correlation(0.2 + 0.5 * a, b, ones(a)) == pytest.approx(plain, abs=1e-9)
    assert metrics.gradient_correlation(1.0 - a, b, ones(a)) == pytest.approx(plain, abs=1e-9)
    assert metrics.gradient_correlation(b, a, ones(a)) == pytest.approx(plain, abs=1e-9)
    assert abs(plain) < 0.2, "noise and other noise have no edges in common"


def test_edge_strength_of_a_ramp_is_eight_slopes():
    ramp = (0.01 * torch.arange(12).double())[None, :, None].expand(7, 12, 3)
    assert torch.allclose(metrics.edge_strength(ramp), torch.full((5, 10), 0.08).double())


def test_edges_move_apart(seed):
    """Bars against the same bars shifted by half a period: edges of one lie where the other is flat."""
    bars = ((torch.arange(64) % 16) < 8).double()[None, :, None].expand(32, 64, 3)
    weight = ones(bars)
    assert metrics.gradient_correlation(bars, bars.roll(8, 1), weight) == pytest.approx(1.0), "edges, whatever sign"
    assert metrics.gradient_correlation(bars, bars.roll(4, 1), weight) < -0.2


@pytest.mark.parametrize("figure", PAIRS)
def test_a_rectangle_is_the_same_as_cropping(seed, figure):
    a, b = noise(seed)
    cropped = figure(a[ROWS, COLUMNS], b[ROWS, COLUMNS], torch.ones(20, 22))
    assert figure(a, b, rectangle(a)) == pytest.approx(cropped, abs=1e-12)
    everything = torch.where(rectangle(a)[..., None] > 0, b, torch.rand(40, 48, 3))
    assert figure(a, everything, rectangle(a)) == pytest.approx(cropped, abs=1e-12), "nothing outside is looked at"


def test_total_variation_in_a_rectangle_is_the_same_as_cropping(seed):
    a, _ = noise(seed)
    cropped = metrics.total_variation(a[ROWS, COLUMNS], torch.ones(20, 22))
    assert metrics.total_variation(a, rectangle(a)) == pytest.approx(cropped, abs=1e-12)


def test_soft_masks_weigh(seed):
    a, b = torch.zeros(4, 4, 3), torch.zeros(4, 4, 3)
    b[:, 2:] = 0.5
    weight = torch.tensor([0.75, 0.75, 0.25, 0.25]).expand(4, 4)
    assert metrics.rms(a, b, weight) ** 2 == pytest.approx(0.25 * 0.25)
    assert metrics.rms(a, b, 0.5 * weight) == pytest.approx(metrics.rms(a, b, weight))


def test_inner_is_the_least_of_each_square(seed):
    weight = torch.rand(9, 12, generator=torch.Generator().manual_seed(seed))
    found = metrics.inner(weight, 2)
    assert found.shape == (5, 8)
    assert found[1, 3] == weight[1:6, 3:8].min()
    assert metrics.inner(weight, 5).numel() == 0


@pytest.mark.parametrize("figure", [*PAIRS, lambda a, _, w: metrics.total_variation(a, w)])
def test_an_empty_region_is_not_available(seed, figure):
    a, b = noise(seed)
    with pytest.raises(NotAvailable):
        figure(a, b, torch.zeros(40, 48))


def test_a_region_without_edges_is_not_available(seed):
    a, _ = noise(seed)
    with pytest.raises(NotAvailable, match="same edge strength"):
        metrics.gradient_correlation(a, torch.full_like(a, 0.5), ones(a))
    with pytest.raises(NotAvailable, match="3 x 3"):
        metrics.gradient_correlation(a[:2], a[:2], torch.ones(2, 48))


@pytest.mark.parametrize("figure", PAIRS)
@pytest.mark.parametrize(
    "shapes", [((4, 4, 3), (4, 5, 3), (4, 4)), ((4, 4, 3), (4, 4, 3), (5, 4)), ((4, 4), (4, 4), (4, 4))]
)
def test_shapes_that_are_refused(figure, shapes):
    with pytest.raises(ValueError, match="of one size") as caught:
        figure(*(torch.zeros(shape) for shape in shapes))
    assert all(str(list(shape)) in str(caught.value) for shape in shapes)


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([0.0, 1.0], [0.0, 1.0], math.inf),
        ([0.0, 1.0], [0.1, 1.1], 20.0),
        ([0.0, 10.0], [1.0, 11.0], 20.0),
        ([-1.0, 1.0], [-1.0, 1.2], 10 * math.log10(4 / 0.02)),
    ],
)
def test_psnr_of_latents(reference, other, expected):
    value = metrics.latent_psnr(torch.tensor(reference).double(), torch.tensor(other).double())
    assert value == pytest.approx(expected)


def test_psnr_of_latents_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"equal shapes, got \(2,\) and \(1, 2\)"):
        metrics.latent_psnr(torch.zeros(2), torch.zeros(1, 2))
