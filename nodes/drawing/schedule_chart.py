"""Bar chart of a LoRA schedule: one bar a step, its height the strength; grey where the base model acts."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image, ImageDraw
from torch import Tensor

from ...diffstyler_core.lora.schedule import LoraSchedule, span
from .canvas import INK, Colour, colour_of, fit_text, font, to_image

PAGE: Colour = (32, 32, 36)
FAINT: Colour = (85, 85, 92)
BASE: Colour = (62, 62, 68)
FINE = 100  # columns of a chart: one for each percent of the run
LETTERS = 24.0  # a node is 320 to 400 pixels wide, half of the chart's width
WIDTH, PLOT, ROW = 720, 240, 36
LEFT, RIGHT, TOP, AXIS, END = 72, 24, 52, 74, 12


class Frame(NamedTuple):
    """Where steps and strengths lie on the chart, in pixels."""

    steps: int
    low: float
    high: float

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.steps

    def y(self, strength: float) -> float:
        return TOP + PLOT * (self.high - strength) / (self.high - self.low)


def frame_of(schedule: LoraSchedule) -> Frame:
    """All steps of the schedule, and every strength with zero and at least one of +-1 between."""
    strengths = [entry.strength for entry in schedule.entries]
    low, high = min(0.0, *strengths), max(0.0, *strengths)
    if high > 0 or low == 0:
        high = max(high, 1.0)
    return Frame(FINE, low, high)


def draw_schedule(schedule: LoraSchedule) -> Tensor:
    """The chart as IMAGE [1, H, 720, 3]; its height grows with the number of entries."""
    rows = len(schedule.entries) + bool(schedule.gaps())
    picture = Image.new("RGB", (WIDTH, TOP + PLOT + AXIS + ROW * rows + END), PAGE)
    draw, frame = ImageDraw.Draw(picture), frame_of(schedule)
    _draw_axes(draw, frame)
    _draw_bars(draw, frame, schedule)
    _draw_legend(draw, schedule)
    return to_image(picture)


def tick_step(steps: int) -> int:
    """A round distance between marks, so that there are at most eleven."""
    sizes = (size * 10**power for power in range(4) for size in (1, 2, 5))
    return next(size for size in sizes if steps <= 10 * size)


def _draw_axes(draw: ImageDraw.ImageDraw, frame: Frame) -> None:
    draw.text((LEFT, TOP - 40), "strength", INK, font(LETTERS))
    for strength in {frame.low, 0.0, frame.high}:
        y = frame.y(strength)
        draw.line((LEFT, y, WIDTH - RIGHT, y), INK if strength == 0 else FAINT, 2)
        if strength == 0 or abs(y - frame.y(0)) > LETTERS:
            draw.text((LEFT - 10, y), f"{strength:.3g}", INK, font(LETTERS), anchor="rm")
    apart, floor = tick_step(frame.steps), TOP + PLOT
    for step in range(0, frame.steps + 1, apart):
        draw.line((frame.x(step), floor, frame.x(step), floor + 8), INK, 2)
        draw.text((frame.x(step), floor + 12), str(step), INK, font(LETTERS), anchor="ma")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, floor + 40), "percent of the run", INK, font(LETTERS), anchor="ma")


def _draw_bars(draw: ImageDraw.ImageDraw, frame: Frame, schedule: LoraSchedule) -> None:
    gap = 2.0 if frame.x(1) - frame.x(0) >= 6 else 0.0
    for start, end in schedule.gaps():
        draw.rectangle(
            (frame.x(FINE * start), frame.y(0) - 12, frame.x(FINE * end) - 1 - gap, frame.y(0) + 12), BASE, FAINT, 2
        )
    for index, entry in enumerate(schedule.entries):
        for step in entry.window(FINE):
            top, bottom = sorted((frame.y(entry.strength_at(step, FINE)), frame.y(0)))
            draw.rectangle(
                (frame.x(step), top, max(frame.x(step), frame.x(step + 1) - 1 - gap), bottom), colour_of(index)
            )


def _draw_legend(draw: ImageDraw.ImageDraw, schedule: LoraSchedule) -> None:
    rows = [(colour_of(i), e.name, span(e.start, e.end)) for i, e in enumerate(schedule.entries)]
    if schedule.gaps():
        rows.append((BASE, "base model", ", ".join(span(a, b) for a, b in schedule.gaps())))
    for number, (colour, name, steps) in enumerate(rows):
        y = TOP + PLOT + AXIS + ROW * number + ROW / 2
        draw.rectangle((LEFT, y - 11, LEFT + 22, y + 11), colour, FAINT)
        steps = fit_text(draw, steps, LETTERS, 260)
        draw.text((WIDTH - RIGHT, y), steps, INK, font(LETTERS), anchor="rm")
        room = WIDTH - RIGHT - LEFT - 36 - 20 - draw.textlength(steps, font(LETTERS))
        draw.text((LEFT + 36, y), fit_text(draw, name, LETTERS, room), INK, font(LETTERS), anchor="lm")
