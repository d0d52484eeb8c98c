"""How much each style covers, and where its number goes."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.styles.coverage import coverage, distance_to_edge, inmost_point
from diffstyler_core.styles.regions import share


def band(first: int, last: int, value: float = 1.0) -> torch.Tensor:
    """A mask [4, 10] of this value in columns first..last - 1."""
    mask = torch.zeros(4, 10)
    mask[:, first:last] = value
    return mask


@pytest.mark.parametrize(
    ("masks", "styles", "uncovered", "overlap"),
    [
        ([band(0, 5), band(5, 8)], (0.5, 0.3), 0.2, 0.0),
        ([band(0, 6), band(4, 10)], (0.5, 0.5), 0.0, 0.2),
        ([band(0, 10, 0.25), band(0, 10, 0.75)], (0.25, 0.75), 0.0, 0.0),
        ([band(0, 5, 0.75), band(0, 10, 0.75)], (0.25, 0.625), 0.125, 0.5),
        ([band(0, 5), None], (0.5, 0.5), 0.0, 0.0),
        ([band(0, 0), band(0, 1)], (0.0, 0.1), 0.9, 0.0),
        ([None], (1.0,), 0.0, 0.0),
        ([band(0, 10, 0.5), band(0, 10, 0.5 + 4e-4)], (0.5, 0.5), 0.0, 0.0),
    ],
)
def test_parts_of_the_picture(masks, styles, uncovered, overlap):
    covered = coverage(share(masks, 4, 10), masks)
    assert covered.styles == pytest.approx(styles, abs=1e-3)
    assert covered.uncovered == pytest.approx(uncovered, abs=1e-3)
    assert covered.overlap == pytest.approx(overlap, abs=1e-7)
    assert sum(covered.styles) + covered.uncovered == pytest.approx(1.0, abs=1e-6)


def test_distances_are_exact(seed):
    region = torch.rand(9, 13, generator=torch.Generator().manual_seed(seed)) > 0.15
    outside = [(y, x) for y in range(-1, 10) for x in range(-1, 14)
               if not (0 <= y < 9 and 0 <= x < 13) or not region[y, x]]  # fmt: skip
    expected = [[min(math.dist((y, x), at) for at in outside) for x in range(13)] for y in range(9)]
    assert torch.allclose(distance_to_edge(region), torch.tensor(expected))


@pytest.mark.parametrize(
    ("box", "at"),
    [
        ((0, 100, 0, 100), (50, 50)),
        ((10, 30, 20, 90), (55, 20)),
        ((0, 100, 80, 100), (90, 50)),
        ((40, 41, 7, 8), (7.5, 40.5)),
    ],
)
@pytest.mark.parametrize("scale", [1, 7])
def test_a_number_stands_in_the_middle_of_a_box(box, at, scale):
    top, bottom, left, right = (scale * edge for edge in box)
    region = torch.zeros(100 * scale, 100 * scale)
    region[top:bottom, left:right] = 1.0
    x, y = inmost_point(region)
    assert (x, y) == pytest.approx((scale * at[0], scale * at[1]), abs=max(1.0, 700 / 128 if scale > 1 else 0))


def test_a_number_stands_inside_a_region_that_is_not_convex():
    """A thick letter L: its centre of mass lies outside of it."""
    region = torch.zeros(60, 60)
    region[:, :12], region[-20:] = 1.0, 1.0
    x, y = inmost_point(region)
    assert region[int(y), int(x)] == 1
    assert y > 45


@pytest.mark.parametrize("value", [1.0, 0.3, 1e-3])
def test_a_faint_region_has_a_number_too(value):
    region = torch.zeros(20, 30)
    region[5:15, 3:9] = value
    assert inmost_point(region) == pytest.approx((6, 10), abs=1)


def test_a_hair_thin_region_of_a_large_picture_still_has_one():
    region = torch.zeros(900, 1300)
    region[:, 700] = 1.0
    x, y = inmost_point(region)
    assert (x, y) == pytest.approx((700.5, 450), abs=10)


def test_an_empty_region_has_none():
    assert inmost_point(torch.zeros(8, 8)) is None


def test_of_a_picture_that_is_nearly_a_line():
    assert inmost_point(torch.ones(1, 2000)) == pytest.approx((1000, 0.5), abs=16)
