"""Line plots for nodes: linear or logarithmic heights, marks, and a legend with a value for each line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import INK, Colour, fit_text, font, to_image
from .schedule_chart import FAINT, LETTERS, PAGE, ROW

WIDTH, PLOT = 720, 300
LEFT, RIGHT, TOP, AXIS, END = 112, 28, 56, 80, 14
SMALL = 20.0


class Line(NamedTuple):
    """Points (x, height) in one colour; joined, or as rings that stand for themselves.

    value: what the legend says at the right.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: Colour
    value: str = ""
    joined: bool = True


class Plot(NamedTuple):
    """What is drawn besides the lines.

    marks: (x, text) below the plot. heights: lowest and highest value shown; logarithmic where ``log``.
    """

    lines: tuple[Line, ...]
    marks: tuple[tuple[float, str], ...]
    across: str
    up: str
    heights: tuple[float, float]
    log: bool = False

    def x(self, value: float) -> float:
        """Pixels from the left, half a mark's distance inside the frame for a single mark."""
        first, last = self.marks[0][0], self.marks[-1][0]
        share = 0.5 if first == last else (value - first) / (last - first)
        return LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * share

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high, at = (math.log10(v) if self.log else v for v in (*self.heights, value))
        return TOP + PLOT * (high - at) / (high - low)


def linear_heights(values: Sequence[float], top: float, least: float) -> tuple[float, float]:
    """From a round number below all values up to ``top``; at least ``least`` high."""
    step = round_step(max(top - min(values), least))
    return step * math.floor(min(*values, top - least) / step + 1e-9), top


def log_heights(values: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around all values above zero."""
    logs = [math.log10(v) for v in values if v > 0 and math.isfinite(v)] or [0.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return 10.0**low, 10.0 ** max(high, low + 1)


def round_step(span: float, most: int = 5) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides ``span`` into at most ``most`` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(size * power for size in (1, 2, 5, 10) if span <= most * size * power * (1 + 1e-9))


def _levels(plot: Plot) -> list[tuple[float, str]]:
    """Heights that get a line across, with their words."""
    low, high = plot.heights
    if plot.log:
        first, last = round(math.log10(low)), round(math.log10(high))
        apart = math.ceil((last - first) / 6)
        return [(10.0**power, f"1e{power}" if power else "1") for power in range(first, last + 1, apart)]
    step = round_step(high - low)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(low + i * step, f"{low + i * step:.{digits}f}") for i in range(round((high - low) / step) + 1)]


def draw_plot(plot: Plot) -> Tensor:
    """The plot as IMAGE [1, H, 720, 3]; its height grows with the number of lines."""
    picture = Image.new("RGB", (WIDTH, TOP + PLOT + AXIS + ROW * len(plot.lines) + END), PAGE)
    draw = ImageDraw.Draw(picture)
    _draw_axes(draw, plot)
    for line in plot.lines:
        _draw_line(draw, plot, line)
    _draw_legend(draw, plot)
    return to_image(picture)


def _draw_axes(draw: ImageDraw.ImageDraw, plot: Plot) -> None:
    draw.text((16, 12), fit_text(draw, plot.up, LETTERS, WIDTH - 32), INK, font(LETTERS))
    for height, words in _levels(plot):
        y = plot.y(height)
        draw.line((LEFT, y, WIDTH - RIGHT, y), FAINT, 2)
        draw.text((LEFT - 10, y), words, INK, font(SMALL), anchor="rm")
    floor = TOP + PLOT
    for at, words in plot.marks:
        draw.line((plot.x(at), floor, plot.x(at), floor + 8), INK, 2)
        draw.text((plot.x(at), floor + 12), words, INK, font(SMALL), anchor="ma")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, floor + 42), plot.across, INK, font(LETTERS), anchor="ma")


def _draw_line(draw: ImageDraw.ImageDraw, plot: Plot, line: Line) -> None:
    drawn = [(plot.x(x), plot.y(v)) for x, v in line.points if math.isfinite(v) and (v > 0 or not plot.log)]
    if line.joined and len(drawn) > 1:
        draw.line(drawn, line.colour, 4, joint="curve")
    for x, y in drawn if _dotted(line) else ():
        _draw_dot(draw, x, y, line)


def _dotted(line: Line) -> bool:
    """Many points that are joined get no dots."""
    return not line.joined or len(line.points) <= 12


def _draw_dot(draw: ImageDraw.ImageDraw, x: float, y: float, line: Line) -> None:
    if line.joined:
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), line.colour)
    else:
        draw.ellipse((x - 10, y - 10, x + 10, y + 10), None, line.colour, 3)


def _draw_legend(draw: ImageDraw.ImageDraw, plot: Plot) -> None:
    for number, line in enumerate(plot.lines):
        y = TOP + PLOT + AXIS + ROW * number + ROW / 2
        if line.joined:
            draw.line((LEFT - 30, y, LEFT + 10, y), line.colour, 4)
        if _dotted(line):
            _draw_dot(draw, LEFT - 10, y, line)
        draw.text((WIDTH - RIGHT, y), line.value, INK, font(LETTERS), anchor="rm")
        room = WIDTH - RIGHT - LEFT - 40 - draw.textlength(line.value, font(LETTERS))
        draw.text((LEFT + 24, y), fit_text(draw, line.name, LETTERS, room), INK, font(LETTERS), anchor="lm")
