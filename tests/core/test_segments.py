"""Which candidates a prompt means, on masks that are known."""

from __future__ import annotations

import pytest
import torch

from diffstyler_core.masks.prompts import Box, Point
from diffstyler_core.masks.segments import (
    Segments,
    box_iou,
    by_boxes,
    by_points,
    by_ranking,
    combine,
    everything,
    in_order,
)

HEIGHT, WIDTH = 48, 64


def rectangle(x1, y1, x2, y2):
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


PERSON, SHIRT, DOG, GROUND = rectangle(4, 4, 24, 44), rectangle(6, 16, 22, 30), rectangle(40, 20, 60, 40), rectangle(
    0, 40, 64, 48
)  # fmt: skip
SCENE = Segments(torch.stack([PERSON, SHIRT, DOG, GROUND]), torch.tensor([0.9, 0.8, 0.7, 0.6]))
NONE = Segments(torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool), torch.zeros(0))
ON_SHIRT, ON_LEGS, ON_DOG, ON_SKY = Point(14, 20), Point(14, 35), Point(50, 30), Point(34, 5)


def outside(point):
    return Point(point.x, point.y, inside=False)


@pytest.mark.parametrize(
    ("points", "best_n", "expected"),
    [
        ([ON_SHIRT], 0, (0,)),  # two cover it: the more confident
        ([ON_SHIRT], 1, (0,)),
        ([ON_SHIRT], 2, (0, 1)),
        ([ON_SHIRT], 9, (0, 1)),
        ([ON_SHIRT, outside(ON_LEGS)], 0, (1,)),  # the person covers the point outside
        ([outside(ON_LEGS), ON_SHIRT], 0, (1,)),
        ([ON_SHIRT, ON_LEGS], 0, (0,)),  # one object for both
        ([ON_SHIRT, ON_DOG], 0, (0, 2)),
        ([ON_DOG, ON_SHIRT], 0, (2, 0)),
        ([ON_DOG, ON_DOG], 0, (2,)),
        ([outside(ON_SHIRT)], 0, (2, 3)),
        ([outside(ON_SHIRT)], 1, (2,)),
        ([outside(ON_SHIRT), outside(ON_DOG), outside(Point(0, 47))], 0, ()),
        ([Point(12, 42)], 0, (0,)),  # the person's feet on the ground
        ([Point(12, 42), outside(ON_SHIRT)], 0, (3,)),
        ([Point(63, 47)], 0, (3,)),
        ([Point(63.9, 47.9)], 0, (3,)),
    ],
)
def test_points(points, best_n, expected):
    assert by_points(SCENE, points, best_n).indices == expected


def test_the_candidate_with_most_points_wins_over_a_more_confident_one():
    segments = Segments(torch.stack([SHIRT, PERSON]), torch.tensor([0.9, 0.5]))
    assert by_points(segments, [ON_SHIRT]).indices == (0,)
    assert by_points(segments, [ON_SHIRT, ON_LEGS]).indices == (1,)


def test_points_on_nothing_are_named():
    selection = by_points(SCENE, [ON_DOG, ON_SKY])
    assert selection.indices == (2,)
    assert selection.unmet == ("point (34, 5)",)
    assert by_points(SCENE, [ON_DOG, outside(ON_DOG)]).unmet == ("point (50, 30)",)


@pytest.mark.parametrize(
    ("boxes", "best_n", "expected"),
    [
        ([Box(4, 4, 24, 44)], 0, (0,)),
        ([Box(5, 15, 23, 31)], 0, (1,)),
        ([Box(5, 15, 23, 31)], 2, (1, 0)),
        ([Box(5, 15, 23, 31)], 9, (1, 0)),  # no others touch it
        ([Box(38, 18, 62, 42), Box(4, 4, 24, 44)], 0, (2, 0)),
        ([Box(-50, 38, 500, 500)], 0, (3,)),
        ([Box(41.2, 20.9, 59.8, 39.5)], 0, (2,)),
        ([Box(0, 40, 0.2, 40.2)], 0, (3,)),  # thinner than a pixel
    ],
)
def test_boxes(boxes, best_n, expected):
    assert by_boxes(SCENE, boxes, best_n).indices == expected


def test_a_box_on_nothing_is_named():
    selection = by_boxes(SCENE, [Box(30, 2, 36, 8), Box(40, 20, 60, 40)])
    assert selection.indices == (2,)
    assert selection.unmet == ("box (30, 2, 36, 8)",)


def test_iou_is_exact():
    iou = box_iou(SCENE.masks, [Box(4, 4, 24, 44), Box(4, 4, 14, 44), Box(-10, 0, 4, 48)])
    assert iou[:, 0].tolist() == pytest.approx([1.0, 16 * 14 / 800, 0.0, 20 * 4 / (800 + 512 - 80)])
    assert iou[0, 1] == pytest.approx(0.5)
    assert iou[3, 2] == pytest.approx(4 * 8 / (4 * 48 + 512 - 32))


@pytest.mark.parametrize(("best_n", "expected"), [(0, (0, 1, 2, 3)), (1, (0,)), (3, (0, 1, 2)), (99, (0, 1, 2, 3))])
def test_everything(best_n, expected):
    assert everything(SCENE, best_n).indices == expected


@pytest.mark.parametrize(("best_n", "expected"), [(0, (2,)), (1, (2,)), (2, (2, 0)), (99, (2, 0, 1))])
def test_ranking(best_n, expected):
    ranking = torch.tensor([0.2, 0.1, 0.3, -torch.inf])
    assert by_ranking(ranking, best_n).indices == expected


def test_none_found_is_no_error():
    assert everything(NONE).indices == ()
    assert by_points(NONE, [ON_DOG]).indices == by_points(NONE, [outside(ON_DOG)]).indices == ()
    assert by_boxes(NONE, [Box(0, 0, 9, 9)]).indices == ()
    assert by_ranking(torch.zeros(0)).indices == ()
    for how in ("merge", "separate"):
        assert combine(NONE, everything(NONE), how).shape == (0, HEIGHT, WIDTH)


def test_hundreds_found(seed):
    """300 single pixels: each point takes its own, however many there are."""
    places = torch.randperm(HEIGHT * WIDTH, generator=torch.Generator().manual_seed(seed))[:300]
    masks = torch.zeros(300, HEIGHT * WIDTH, dtype=torch.bool)
    masks[range(300), places] = True
    segments = in_order(masks.view(300, HEIGHT, WIDTH), torch.linspace(1, 0.1, 300))
    points = [Point(float(p % WIDTH), float(p // WIDTH)) for p in places[100:200].tolist()]
    assert by_points(segments, points).indices == tuple(range(100, 200))
    assert len(everything(segments).indices) == 300
    assert combine(segments, everything(segments), "merge").sum() == 300


def test_merge_and_separate():
    selection = by_points(SCENE, [ON_SHIRT, ON_DOG])
    merged, separate = combine(SCENE, selection, "merge"), combine(SCENE, selection, "separate")
    assert torch.equal(merged, (PERSON | DOG)[None].float())
    assert torch.equal(separate, torch.stack([PERSON, DOG]).float())


def test_candidates_are_ordered_and_empty_ones_left_out():
    empty = torch.zeros_like(DOG)
    segments = in_order(torch.stack([DOG, empty, PERSON, SHIRT]), torch.tensor([0.1, 0.9, 0.5, 0.5]))
    assert torch.equal(segments.masks, torch.stack([PERSON, SHIRT, DOG]))
    assert segments.scores.tolist() == pytest.approx([0.5, 0.5, 0.1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Segments(torch.zeros(2, 4, 4), torch.zeros(2)), "masks [N, H, W] of bool"),
        (lambda: Segments(SCENE.masks, torch.zeros(3)), "scores [N]"),
        (lambda: Segments(SCENE.masks, torch.tensor([0.1, 0.2, 0.3, 0.4])), "most confident first"),
        (lambda: everything(SCENE, -1), "got -1"),
        (lambda: by_points(SCENE, [ON_DOG], -2), "got -2"),
        (lambda: combine(SCENE, everything(SCENE), "mean"), "got 'mean'"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=r"got") as caught:
        make()
    assert words in str(caught.value)
