"""Masks: what is refused, area means against a loop in exact fractions, growth, feathers, and the host's crop."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch

from diffstyler_core.masks.mask import as_encoded, encoded_window, feather, fit_mask, grow, one_mask, resize_by_area

NAN, INF = math.nan, math.inf


def dot(height: int = 41, width: int = 41) -> torch.Tensor:
    mask = torch.zeros(height, width)
    mask[height // 2, width // 2] = 1.0
    return mask


def distances(height: int = 41, width: int = 41) -> torch.Tensor:
    """Of each pixel to the dot."""
    y, x = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    return (x**2 + y**2).sqrt()


def mean_of_cell(mask: torch.Tensor, i: int, j: int, height: int, width: int) -> float:
    """The integral of a mask over new pixel (i, j), in exact fractions."""
    total = Fraction(0)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            parts = []
            for at, old, new, k in ((y, mask.shape[0], height, i), (x, mask.shape[1], width, j)):
                cell = Fraction(old, new)
                parts.append(max(Fraction(0), min(at + 1, (k + 1) * cell) - max(at, k * cell)) / cell)
            total += parts[0] * parts[1] * Fraction(mask[y, x].item())
    return float(total)


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.uint8, torch.bool])
def test_a_mask_comes_back_flat_in_fp32(shape, dtype):
    mask = one_mask(torch.ones(shape, dtype=dtype), "mask")
    assert (mask.shape, mask.dtype) == ((3, 4), torch.float32)
    assert (mask == 1).all()


def test_what_resampling_leaves_beyond_the_range_is_clamped_and_the_given_mask_stays():
    given = torch.tensor([[-0.0005, 0.5, 1.0005]])
    assert one_mask(given, "mask").tolist() == [[0.0, 0.5, 1.0]]
    assert given.max() > 1.0


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(3, 4, 4), ("one mask [1, H, W]", "a batch of 3", "Pick one")),
        (torch.zeros(0, 4, 4), ("one mask [1, H, W]", "a batch of 0")),
        (torch.zeros(1, 1, 4, 4), ("one mask [1, H, W]", "shape [1, 1, 4, 4]")),
        (torch.zeros(4), ("one mask [1, H, W]", "shape [4]")),
        (torch.zeros(1, 0, 4), ("no values", "check the node that made it")),
        (torch.tensor([[0.0, NAN]]), ("not finite", "check the node that made it")),
        (torch.tensor([[0.0, INF]]), ("not finite", "check the node that made it")),
        (torch.tensor([[0.0, 255.0]]), ("0..1", "0..255", "Divide by the largest")),
        (torch.tensor([[-1.0, 0.5]]), ("0..1", "-1..0.5", "Convert Image to Mask")),
        (torch.tensor([[0.0, 1.002]]), ("0..1", "1.002")),
        (torch.tensor([[-0.002, 1.0]]), ("0..1", "-0.002")),
    ],
)
def test_masks_that_are_none_are_refused_by_name(mask, words):
    with pytest.raises(ValueError, match=r"^mask of style 2") as error:
        one_mask(mask, "mask of style 2")
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [((6, 8), (3, 4)), ((7, 5), (3, 4)), ((5, 9), (1, 1)), ((3, 4), (7, 5)), ((1, 2), (3, 3)), ((4, 6), (5, 3))],
)
def test_area_means_are_exact(seed, old, new):
    mask = torch.rand(old, generator=torch.Generator().manual_seed(seed))
    cells = [[mean_of_cell(mask, i, j, *new) for j in range(new[1])] for i in range(new[0])]
    expected = torch.tensor(cells, dtype=torch.float64)
    assert torch.allclose(resize_by_area(mask.double(), *new), expected, atol=1e-14)
    assert torch.allclose(resize_by_area(mask, *new), expected.float(), atol=1e-7)


def test_zero_one_and_any_flat_value_stay_exact_at_any_size(seed):
    draw = random.Random(seed)
    for _ in range(40):
        old, new = ([draw.randint(1, 90), draw.randint(1, 90)] for _ in range(2))
        for value in (0.0, 1.0, 0.3):
            assert (resize_by_area(torch.full(old, value), *new) == torch.tensor(value)).all(), (old, new)


def test_a_half_covered_picture_is_zero_and_one_off_its_edge():
    mask = torch.zeros(70, 90)
    mask[:, 45:] = 1.0
    small = resize_by_area(mask, 7, 13)  # the edge lies in the middle of column 6
    assert (small[:, :6] == 0).all()
    assert (small[:, 7:] == 1).all()
    assert torch.allclose(small[:, 6], torch.tensor(0.5))


def test_the_same_size_gives_the_same_mask(seed):
    mask = torch.rand(13, 17, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(resize_by_area(mask, 13, 17), mask)


@pytest.mark.parametrize("pixels", range(16))
def test_growth_reaches_its_radius_and_is_nearly_round(pixels):
    grown, away = grow(dot(), pixels), distances()
    assert set(grown.unique().tolist()) <= {0.0, 1.0}
    assert (grown[20] == (away[20] <= pixels)).all(), "exact along the axes"
    assert (grown[away <= 0.85 * pixels] == 1).all()
    assert (grown[away > 1.12 * pixels] == 0).all()
    assert torch.equal(grown, grown.T)


def test_growth_of_soft_values_is_the_largest_within_reach(seed):
    mask = torch.rand(12, 15, generator=torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    around = [padded[1 + dy : 13 + dy, 1 + dx : 16 + dx] for dy, dx in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))]
    assert torch.equal(grow(mask, 1), torch.stack(around).amax(0))
    assert torch.equal(grow(mask, 0), mask)
    assert torch.equal(grow(mask, -3), 1.0 - grow(1.0 - mask, 3))


def test_the_pictures_border_is_no_edge():
    for pixels in (-5, 5):
        assert (grow(torch.ones(8, 8), pixels) == 1).all()
        assert (grow(torch.zeros(8, 8), pixels) == 0).all()
    assert (feather(torch.ones(8, 8), 5) == 1).all()


@pytest.mark.parametrize("pixels", [1, 2, 3, 8, 13])
def test_a_feather_reaches_exactly_its_pixels_and_keeps_flat_areas(pixels):
    edge = torch.zeros(40, 60)
    edge[:, 30:] = 1.0
    soft = feather(edge, pixels)
    assert (soft[:, : 30 - pixels] == 0).all()
    assert (soft[:, 30 + pixels :] == 1).all()
    assert (soft[:, 30 - pixels] > 0).all()
    assert (soft[:, 29 + pixels] < 1).all()
    assert (soft.diff(dim=1)[:, 29 - pixels : 29 + pixels] > 0).all()
    assert torch.allclose(soft + soft.flip(1), torch.ones(()), atol=1e-7)


def test_a_feather_is_the_gaussian_it_says():
    soft = feather(dot(), 6)
    at = range(-6, 7)
    total = sum(math.exp(-0.5 * (i / 3) ** 2) for i in at)
    for i in (0, 1, 3, 6):
        for j in (0, 2, 6):
            expected = math.exp(-0.5 * (i / 3) ** 2) * math.exp(-0.5 * (j / 3) ** 2) / total**2
            assert soft[20 + i, 20 - j].item() == pytest.approx(expected, rel=1e-6)
    assert soft[20, 27] == 0
    assert soft.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_feathers_that_cannot_be():
    with pytest.raises(ValueError, match="0 or more pixels wide, got -2"):
        feather(dot(), -2)
    mask = dot()
    assert feather(mask, 0) is mask


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((64, 96), (0, 64), (0, 96)),
        ((65, 97), (0, 64), (0, 96)),
        ((66, 103), (1, 65), (3, 99)),
        ((71, 8), (3, 67), (0, 8)),
    ],
)
def test_the_window_that_vae_encode_keeps(size, rows, columns):
    assert encoded_window(*size) == (slice(*rows), slice(*columns))


def test_a_mask_of_the_uncropped_picture_is_cropped_with_it(seed):
    mask = torch.rand(71, 97, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(as_encoded(mask, 64, 96), mask[3:67, 0:96])
    means = mask[3:67, 0:96].double().reshape(8, 8, 12, 8).mean((1, 3)).float()
    assert torch.allclose(fit_mask(mask, (8, 12), (64, 96)), means, atol=1e-7)
    for picture in ((64, 88), (71, 97), (72, 96), (32, 48), (68, 96)):
        assert as_encoded(mask, *picture) is mask


def test_growth_and_feather_are_in_pixels_of_the_picture():
    """A mask of another resolution grows by as many pixels of the picture."""
    small = torch.zeros(10, 10)
    small[:, :5] = 1.0
    fitted = fit_mask(small, (80, 80), (80, 80), grow_pixels=7)
    assert torch.equal(fitted[0], (torch.arange(80) < 47).float())
    fitted = fit_mask(small, (80, 80), (80, 80), grow_pixels=-7, feather_pixels=4)
    assert (fitted[:, :29] == 1).all()
    assert (fitted[:, 37:] == 0).all()
    assert ((fitted[:, 29:37] > 0) & (fitted[:, 29:37] < 1)).all()
