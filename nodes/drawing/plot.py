"""Line plots for nodes: linear or logarithmic heights, and a legend with a value for each line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .page import dark_style, new_page, render
from .palette import Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PLOT, ROW = 720, 410, 36
DOTTED = 12
"""A line of at most so many points shows them."""
LEAST = 0.01
"""Height that a plot with a given top shows at least."""


class Line(NamedTuple):
    """Points (x, height) in one colour; joined, or as rings that stand for themselves. value: shown in the legend."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: Colour
    value: str = ""
    joined: bool = True


class Plot(NamedTuple):
    """What is drawn, and its axes.

    marks: words for the places 0, 1, .. across; empty: numbers. top: the highest height, where it is known; log:
    heights are shown as powers of ten.
    """

    lines: tuple[Line, ...]
    across: str
    up: str
    marks: tuple[str, ...] = ()
    top: float | None = None
    log: bool = False


def draw_plot(plot: Plot) -> Tensor:
    """The plot as IMAGE [1, H, 720, 3]; its height grows with the number of lines."""
    with dark_style():
        return render(plot_page(plot))


def plot_page(plot: Plot) -> Figure:
    """The plot within ``dark_style``, a line of its axes for each line."""
    page = new_page(WIDTH, PLOT + ROW * len(plot.lines), layout="constrained")
    axes = page.add_subplot()
    axes.set_yscale("log" if plot.log else "linear")
    for line in plot.lines:
        _draw_line(axes, line, plot.log)
    axes.set_title(plot.up)
    axes.set_xlabel(plot.across)
    _set_limits(axes, plot)
    page.legend(loc="outside lower left")
    return page


def _draw_line(axes: Axes, line: Line, log: bool) -> None:
    """Heights that the axis does not have are left out: what is not finite, and zero on a logarithmic one."""
    drawn = [(x, y) for x, y in line.points if math.isfinite(y) and (y > 0 or not log)]
    xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
    words = f"{line.name}, {line.value}" if line.value else line.name
    if line.joined:
        form = "o-" if len(line.points) <= DOTTED else "-"
        axes.plot(xs, ys, form, markersize=11, color=line.colour, label=words)
    else:
        axes.plot(xs, ys, "o", markersize=18, fillstyle="none", markeredgewidth=3, color=line.colour, label=words)


def _set_limits(axes: Axes, plot: Plot) -> None:
    from matplotlib.ticker import MaxNLocator

    if plot.top is not None:
        low = min(axes.get_ylim()[0], plot.top - LEAST)
        axes.set_ylim(low, plot.top + 0.05 * (plot.top - low))
    if plot.marks:
        axes.set_xticks(range(len(plot.marks)), plot.marks)
        axes.set_xlim(-0.3, len(plot.marks) - 0.7)
    else:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
