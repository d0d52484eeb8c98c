"""Points and boxes as users write them."""

from __future__ import annotations

import pytest

from diffstyler_core.masks.prompts import Box, Point, parse_boxes, parse_points, require_boxes, require_points


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("120,80", [Point(120, 80)]),
        (" 120 , 80 ; 200,150 , - ", [Point(120, 80), Point(200, 150, inside=False)]),
        ("1.5,2.; 3,4;", [Point(1.5, 2), Point(3, 4)]),
        ("1,2\n3,4,-\n", [Point(1, 2), Point(3, 4, inside=False)]),
        ("-1,2", [Point(-1, 2)]),
        ("", []),
        (" ;\n; ", []),
    ],
)
def test_points_are_read(text, expected):
    assert parse_points(text) == expected


@pytest.mark.parametrize(
    "entry",
    [
        "120",
        "120 80",
        "1,2,3",
        "1,2,+",
        "1,2,-,",
        "a,b",
        "1,",
        ",1",
        "nan,1",
        "inf,1",
        "1e3,1",
        "0x1,1",
        "1,2,0",
        "(1,2)",
    ],
)
def test_malformed_points_are_refused_with_the_grammar(entry):
    with pytest.raises(ValueError, match="points must be written as 'x, y' inside") as caught:
        parse_points(f"5, 5; {entry}; 6, 6")
    assert repr(entry) in str(caught.value)


def test_boxes_are_read():
    assert parse_boxes("10,20,200,180; 5,5, 50.5,50\n") == [Box(10, 20, 200, 180), Box(5, 5, 50.5, 50)]
    assert parse_boxes(" ") == []


@pytest.mark.parametrize("entry", ["1,2,3", "1,2,3,4,5", "1,2,3,x", "1 2 3 4", "1,2,3,-", "1,2,,4", "1,2,3,nan"])
def test_malformed_boxes_are_refused_with_the_grammar(entry):
    with pytest.raises(ValueError, match="boxes must be written as 'x1, y1, x2, y2'") as caught:
        parse_boxes(f"0,0,1,1;{entry}")
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize("point", [Point(0, 0), Point(63, 47), Point(63.9, 47.9), Point(0, 0, inside=False)])
def test_points_in_the_picture_pass(point):
    require_points([point], width=64, height=48)


@pytest.mark.parametrize("point", [Point(64, 0), Point(0, 48), Point(-1, 5), Point(5, -0.1), Point(float("nan"), 5)])
def test_points_outside_the_picture_are_refused(point):
    with pytest.raises(ValueError, match=r"64 x 48 pixels .*got point 2 at \(.*Move it into the picture"):
        require_points([Point(1, 1), point], width=64, height=48)


@pytest.mark.parametrize("box", [Box(0, 0, 64, 48), Box(-10, -10, 5, 5), Box(60, 40, 900, 900)])
def test_boxes_that_touch_the_picture_pass(box):
    require_boxes([box], width=64, height=48)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(5, 5, 5, 9), "x1 < x2"),
        (Box(5, 9, 9, 5), "top left corner first"),
        (Box(0, 0, float("nan"), 9), "x1 < x2"),
        (Box(0, 0, float("inf"), 9), "x1 < x2"),
        (Box(64, 0, 70, 9), "64 x 48"),
        (Box(-9, -9, 0, 5), "Move it into the picture"),
    ],
)
def test_other_boxes_are_refused(box, words):
    with pytest.raises(ValueError, match="got box 1 ") as caught:
        require_boxes([box], width=64, height=48)
    assert words in str(caught.value)
