"""Axes of plots: round numbers, whole decades, and values that cannot be drawn."""

from __future__ import annotations

import math

import pytest
import torch


@pytest.mark.parametrize(
    ("values", "heights"),
    [
        ((0.95, 0.99), (0.95, 1.0)),
        ((0.951, 0.99), (0.95, 1.0)),
        ((1.0, 1.0), (0.99, 1.0)),
        ((0.9999,), (0.99, 1.0)),
        ((0.6016,), (0.6, 1.0)),
        ((0.42,), (0.4, 1.0)),
        ((-0.3, 0.5), (-0.5, 1.0)),
    ],
)
def test_linear_heights(pack, values, heights):
    assert pack.drawing.plot.linear_heights(values, 1.0, 0.01) == pytest.approx(heights)


@pytest.mark.parametrize(
    ("values", "heights"),
    [((0.02, 0.003), (1e-3, 1e-1)), ((1e-3, 1e-3), (1e-3, 1e-2)), ((0.0, 2.0), (1.0, 10.0)), ((0.0,), (1.0, 10.0)),
     ((math.inf, 0.5), (0.1, 1.0))],
)  # fmt: skip
def test_log_heights(pack, values, heights):
    assert pack.drawing.plot.log_heights(values) == pytest.approx(heights)


@pytest.mark.parametrize(("span", "step"), [(1.0, 0.2), (0.01, 0.002), (0.4, 0.1), (5, 1), (6, 2), (11, 5), (30, 10)])
def test_round_steps(pack, span, step):
    assert pack.drawing.plot.round_step(span) == pytest.approx(step)


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_the_axes_say(pack, log):
    colour = (250, 10, 20)
    line = pack.drawing.plot.Line("a line", ((0.0, 1.0), (5.0, 0.1), (10.0, 0.01)), colour, "a value")
    marks = tuple((float(x), str(x)) for x in (0, 5, 10))
    plot = pack.drawing.plot.Plot((line,), marks, "across", "up", (0.01, 1.0) if log else (0.0, 1.0), log)
    drawn = pack.drawing.plot.draw_plot(plot)
    for x, value in line.points:
        pixel = drawn[0, round(plot.y(value)), round(plot.x(x))]
        assert torch.allclose(pixel, torch.tensor(colour) / 255, atol=0.01)
    share = 0.5 if log else 0.9
    assert plot.y(0.1) == pytest.approx(pack.drawing.plot.TOP + share * pack.drawing.plot.PLOT)


def test_values_without_a_height_are_left_out(pack):
    """Zero on a logarithmic axis, and what is not finite; a single mark stands in the middle."""
    points = ((0.0, 0.0), (0.0, math.nan), (0.0, math.inf))
    line = pack.drawing.plot.Line("nothing", points, (250, 10, 20))
    drawn = pack.drawing.plot.draw_plot(pack.drawing.plot.Plot((line,), ((0.0, "0"),), "", "", (0.1, 1.0), True))
    inside = drawn[0, pack.drawing.plot.TOP : pack.drawing.plot.TOP + pack.drawing.plot.PLOT]
    assert not (inside - torch.tensor((250, 10, 20)) / 255).abs().amax(-1).lt(0.1).any()
