"""Plots: points where the axes say, values that cannot be drawn, words as they were typed, settings left alone."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

RED = (0.98, 0.04, 0.08)


def line_of(pack, *points, joined=True):
    return pack.drawing.plot.Line("a line", points, RED, "a value", joined)


def pixel_of(page, drawn, x, y):
    """The colour [3] that a point of the page's axes has in its picture."""
    across, up = page.axes[0].transData.transform((x, y))
    return drawn[0, round(drawn.shape[1] - up), round(across)]


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_the_axes_say(pack, log):
    line = line_of(pack, (0.0, 1.0), (5.0, 0.1), (10.0, 0.01))
    plot = pack.drawing.plot.Plot((line,), "across", "up", log=log)
    with pack.drawing.page.dark_style():
        page = pack.drawing.plot.plot_page(plot)
        drawn = pack.drawing.page.render(page)
    assert torch.equal(drawn, pack.drawing.plot.draw_plot(plot))
    assert page.axes[0].get_yscale() == ("log" if log else "linear")
    for point in line.points:
        assert torch.allclose(pixel_of(page, drawn, *point), torch.tensor(RED), atol=0.02)


@pytest.mark.parametrize(("values", "low"), [((0.42, 0.9), 0.42), ((0.9999, 1.0), 0.99), ((-0.3, 0.5), -0.3)])
def test_a_plot_with_a_top_shows_it_and_a_hundredth_at_least(pack, values, low):
    plot = pack.drawing.plot.Plot((line_of(pack, *enumerate(values)),), "", "", ("a", "b"), top=1.0)
    with pack.drawing.page.dark_style():
        page = pack.drawing.plot.plot_page(plot)
        bottom, top = page.axes[0].get_ylim()
    assert low - 0.1 * (1.0 - low) <= bottom <= low
    assert 1.0 < top < 1.0 + 0.1 * (1.0 - bottom)
    assert [label.get_text() for label in page.axes[0].get_xticklabels()] == ["a", "b"]


@pytest.mark.parametrize("joined", [False, True])
def test_values_without_a_height_are_left_out(pack, joined):
    """Zero on a logarithmic axis, and what is not finite."""
    line = line_of(pack, (0.0, 0.0), (0.0, math.nan), (1.0, math.inf), (2.0, 0.5), joined=joined)
    plot = pack.drawing.plot.Plot((line,), "", "", log=True)
    with pack.drawing.page.dark_style():
        (drawn,) = pack.drawing.plot.plot_page(plot).axes[0].lines
    assert drawn.get_xydata().tolist() == [[2.0, 0.5]]
    nothing = plot._replace(lines=(line_of(pack, (0.0, 0.0)),))
    assert pack.drawing.plot.draw_plot(nothing).isfinite().all()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("ink", "ink"), ("a\nb", "a b"), ("$x$", r"\$x\$"), ("\u58a8 ink", "? ink"), ("n" * 30, "n" * 7 + "...")],
)
def test_users_words_are_one_line_of_letters_that_the_font_has(pack, text, shown):
    assert pack.drawing.page.one_line(text, 10) == shown


def test_drawing_leaves_matplotlib_as_it_was(pack):
    """Another pack's settings stay, and do not show."""
    import matplotlib

    plot = pack.drawing.plot.Plot((line_of(pack, (0.0, 1.0), (1.0, 2.0)),), "", "")
    expected = pack.drawing.plot.draw_plot(plot)
    with (
        matplotlib.rc_context({"axes.facecolor": "green", "text.usetex": True, "font.size": 3}),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        before = dict(matplotlib.rcParams)
        assert torch.equal(pack.drawing.plot.draw_plot(plot), expected)
        assert dict(matplotlib.rcParams) == before


def test_colours_of_many_are_apart(pack):
    colours = torch.tensor([pack.drawing.palette.colour_of(index) for index in range(21)])
    apart = torch.cdist(colours, colours) + 9 * torch.eye(21)
    assert apart.min() > 0.1
    assert (colours.amax(1) > 0.55).all(), "seen on a dark page"
