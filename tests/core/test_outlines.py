"""Lines along masks' edges, and where a region's number goes."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.masks.outlines import distance_to_edge, inmost_point, inner_line, outer_line


def box(rows: slice, columns: slice) -> torch.Tensor:
    mask = torch.zeros(12, 16, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("width", [1, 2])
def test_lines_lie_on_both_sides_of_the_edge(width):
    mask = box(slice(3, 9), slice(4, 12))
    within = box(slice(3 + width, 9 - width), slice(4 + width, 12 - width))
    around = box(slice(3 - width, 9 + width), slice(4 - width, 12 + width))
    assert torch.equal(inner_line(mask, width), mask & ~within)
    assert torch.equal(outer_line(mask, width), around & ~mask)


def test_the_pictures_border_is_no_edge():
    everything = torch.ones(5, 6, dtype=torch.bool)
    assert not inner_line(everything, 2).any()
    assert not outer_line(everything, 2).any()
    assert not inner_line(~everything, 2).any()
    half = box(slice(0, 12), slice(8, 16))
    assert torch.equal(inner_line(half, 1), box(slice(0, 12), slice(8, 9)))


def test_distances_are_exact(seed):
    region = torch.rand(9, 13, generator=torch.Generator().manual_seed(seed)) > 0.15
    outside = [(y, x) for y in range(-1, 10) for x in range(-1, 14)
               if not (0 <= y < 9 and 0 <= x < 13) or not region[y, x]]  # fmt: skip
    expected = [[min(math.dist((y, x), at) for at in outside) for x in range(13)] for y in range(9)]
    assert torch.allclose(distance_to_edge(region), torch.tensor(expected).double())


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
