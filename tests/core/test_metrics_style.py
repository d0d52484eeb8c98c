"""Colour and texture distances: closed forms, invariances, masks that are rectangles."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.metrics import colour as metrics_colour
from diffstyler_core.metrics import texture as metrics_texture
from diffstyler_core.metrics.available import NotAvailable

ROWS, COLUMNS = slice(8, 40), slice(16, 64)


def noise(seed, height=64, width=72):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed)).double()


def ones(picture):
    return torch.ones(picture.shape[:2])


def rectangle(picture):
    weight = torch.zeros(picture.shape[:2])
    weight[ROWS, COLUMNS] = 1.0
    return weight


def colours(picture, weight=None):
    return metrics_colour.colour_quantiles(picture, ones(picture) if weight is None else weight)


def texture(picture, weight=None):
    return metrics_texture.filter_grams(picture, ones(picture) if weight is None else weight)


def colour_distance(a, b):
    return metrics_colour.colour_distance(colours(a), colours(b))


def texture_distance(a, b):
    return metrics_texture.gram_distance(texture(a), texture(b))


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((1, 1, 1), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((1, 0, 0), (53.24, 80.09, 67.20)),
     ((0, 1, 0), (87.73, -86.18, 83.18)), ((0, 0, 1), (32.30, 79.19, -107.86)), ((0.5, 0.5, 0.5), (53.39, 0, 0))],
)  # fmt: skip
def test_lab_of_known_colours(rgb, lab):
    assert metrics_colour.lab(torch.tensor(rgb)).tolist() == pytest.approx(lab, abs=0.02)


def test_lab_is_scikit_images(seed):
    colour = pytest.importorskip("skimage.color")
    a = noise(seed)
    assert (metrics_colour.lab(a) - torch.from_numpy(colour.rgb2lab(a.numpy()))).abs().max() < 0.02


def test_directions_are_fixed_and_even():
    found = metrics_colour.directions()
    assert found.shape == (31, 3)
    assert torch.allclose(found.norm(dim=1), torch.ones(31).double())
    assert torch.allclose(found.T @ found, torch.eye(3).double() * 31 / 3)
    apart = (found @ found.T).abs() - torch.eye(31)
    assert apart.max() < 0.999, "no axis twice, in neither direction"
    assert torch.equal(found, metrics_colour.directions())


@pytest.mark.parametrize(("a", "b"), [((0.2, 0.4, 0.6), (0.5, 0.1, 0.3)), ((0, 0, 0), (1, 1, 1))])
def test_two_flat_colours_are_as_far_apart_as_in_lab(a, b):
    pictures = [torch.tensor(c).double().expand(6, 7, 3) for c in (a, b)]
    expected = (metrics_colour.lab(pictures[0]) - metrics_colour.lab(pictures[1])).norm(dim=-1).max().item()
    assert colour_distance(*pictures) == pytest.approx(expected, rel=1e-9)


def test_a_change_of_shares_in_closed_form():
    """A quarter of the pixels moves from black to white: along L, 1/4 of the quantiles by 100."""

    def striped(white):
        return (torch.arange(100) < white).double()[None, :, None].expand(4, 100, 3)

    assert colour_distance(striped(50), striped(25)) == pytest.approx(100 * math.sqrt(0.25), rel=1e-3)


def test_colours_do_not_depend_on_place_or_size(seed):
    a = noise(seed)
    shuffled = a.flatten(0, 1)[torch.randperm(64 * 72)].reshape(a.shape)
    assert colour_distance(a, shuffled) == 0.0
    assert colour_distance(a, torch.cat([a, a, a])) == pytest.approx(0.0, abs=1e-6)
    assert colour_distance(a, 0.5 * a) == colour_distance(0.5 * a, a)
    assert colour_distance(a, 0.5 * a) > 10


def test_colours_in_a_rectangle_are_those_of_the_crop(seed):
    a = noise(seed)
    assert torch.equal(colours(a, rectangle(a)), colours(a[ROWS, COLUMNS]))


def test_colours_of_large_pictures_are_sampled(seed):
    a = noise(seed, 600, 700)
    assert torch.equal(colours(a), colours(a[::2, ::2]))


def test_an_empty_region_has_no_colours_and_no_texture(seed):
    a = noise(seed)
    with pytest.raises(NotAvailable, match="empty"):
        colours(a, torch.zeros(64, 72))
    assert texture(a, torch.zeros(64, 72)) == [None] * 4
    with pytest.raises(NotAvailable, match="too small"):
        metrics_texture.gram_distance([None] * 4, texture(a))


def test_gram_in_closed_form():
    features = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])  # [C=2, 1, 2]
    assert metrics_texture.gram(features, torch.ones(1, 2)).tolist() == [[2.5, 5.5], [5.5, 12.5]]
    assert metrics_texture.gram(features, torch.tensor([[0.0, 3.0]])).tolist() == [[4.0, 8.0], [8.0, 16.0]]
    half = metrics_texture.gram_distance([torch.eye(2), None], [3 * torch.eye(2), torch.eye(2)])
    assert half == pytest.approx(0.5)
    assert metrics_texture.gram_distance([torch.zeros(2, 2)], [torch.zeros(2, 2)]) == 0.0


def test_derivatives_of_a_ramp_in_closed_form():
    """A ramp of slope s to the right answers s cos(angle), where that is positive."""
    ramp = (0.01 * torch.arange(20).double()).expand(12, 20)[None]
    found = metrics_texture.rectified_derivatives(ramp)
    assert found.shape == (8, 6, 14)
    expected = [max(0.0, 0.01 * math.cos(i * math.pi / 4)) for i in range(8)]
    assert torch.allclose(found, torch.tensor(expected).double()[:, None, None].expand(8, 6, 14), atol=1e-12)


def test_textures_ignore_brightness_and_see_direction(seed):
    a = noise(seed)
    assert texture_distance(a, a) == 0.0
    assert texture_distance(a, a + 0.25) == pytest.approx(0.0, abs=1e-9)
    bars = ((torch.arange(64) // 4) % 2).double()[None, :, None].expand(64, 64, 3)
    assert texture_distance(bars, bars.roll(4, 1)) < 0.05
    assert texture_distance(bars, bars.transpose(0, 1)) > 0.5
    assert texture_distance(bars, 0.5 * bars) == pytest.approx(0.6), "(1 - 1/4) / (1 + 1/4)"


def test_textures_of_crops_of_one_noise_are_close(seed):
    a, other = noise(seed, 256, 256), noise(seed + 1, 256, 192)
    assert texture_distance(a, other) < 0.1
    smooth = torch.nn.functional.avg_pool2d(other.movedim(-1, 0), 5, 1, 2).movedim(0, -1)
    assert texture_distance(a, smooth) > 0.3


def test_texture_in_a_rectangle_is_that_of_the_crop(seed):
    """Its sides are multiples of 8 pixels: coarser scales average over squares that end at its border."""
    a = noise(seed)
    inside, crop = texture(a, rectangle(a)), texture(a[ROWS, COLUMNS])
    for g, h in zip(inside, crop, strict=True):
        assert (g is None) == (h is None)
        assert g is None or torch.allclose(g, h)
    assert [g is None for g in crop] == [False, False, False, True], "4 x 6 pixels are too small for 7 x 7 filters"


@pytest.mark.parametrize("size", [(1, 1), (6, 64), (7, 7), (13, 300)])
def test_small_pictures(seed, size):
    grams = texture(noise(seed, *size))
    assert (grams[0] is None) == (min(size) < 7)
