"""Chart of a LoRA schedule: each LoRA's strength over the run; grey where the base model acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ...diffstyler_core.lora.schedule import LoraEntry, LoraSchedule, span
from .page import dark_style, new_page, one_line, render
from .palette import FAINT, INK, colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PLOT, ROW = 720, 360, 36
LONGEST = 30
"""Letters of a name in the legend."""
BASE_HEIGHT = 0.03
"""Of the base model's bar to each side of the axis, as a share of the strengths that are shown."""


def outline(entry: LoraEntry) -> tuple[list[float], list[float]]:
    """(xs, ys): corners of the entry's strength over shares of the run, as of very many steps."""
    xs = [entry.start, entry.start + entry.ramp_in, entry.end - entry.ramp_out, entry.end]
    return xs, [
        0.0 if entry.ramp_in else entry.strength,
        *[entry.strength] * 2,
        0.0 if entry.ramp_out else entry.strength,
    ]


def strengths_shown(schedule: LoraSchedule) -> tuple[float, float]:
    """Lowest and highest strength of the chart: every entry's, zero, and 1 unless all are negative."""
    strengths = [entry.strength for entry in schedule.entries]
    low, high = min(0.0, *strengths), max(0.0, *strengths)
    return low, high if low < 0 and high == 0 else max(high, 1.0)


def draw_schedule(schedule: LoraSchedule) -> Tensor:
    """The chart as IMAGE [1, H, 720, 3]; its height grows with the number of entries."""
    with dark_style():
        return render(schedule_page(schedule))


def schedule_page(schedule: LoraSchedule) -> Figure:
    """The chart within ``dark_style``: a filled outline for each entry, in their order, then one for each gap."""
    rows = len(schedule.entries) + bool(schedule.gaps())
    page = new_page(WIDTH, PLOT + ROW * rows, layout="constrained")
    axes = page.add_subplot()
    for index, entry in enumerate(schedule.entries):
        xs, ys = outline(entry)
        label = f"{span(entry.start, entry.end)}   {one_line(entry.name, LONGEST)}"
        axes.fill_between(xs, ys, color=colour_of(index), linewidth=0, label=label)
    _draw_gaps(axes, schedule)
    _draw_axes(axes, schedule)
    page.legend(loc="outside lower left", handlelength=1.0)
    return page


def _draw_gaps(axes: Axes, schedule: LoraSchedule) -> None:
    low, high = strengths_shown(schedule)
    half = BASE_HEIGHT * (high - low)
    gaps = ", ".join(span(start, end) for start, end in schedule.gaps())
    label = f"{gaps}   base model" if len(gaps) <= LONGEST else "base model"
    for number, (start, end) in enumerate(schedule.gaps()):
        words = None if number else label  # one line of the legend for all
        axes.fill_between((start, end), -half, half, color=FAINT, linewidth=0, label=words)


def _draw_axes(axes: Axes, schedule: LoraSchedule) -> None:
    low, high = strengths_shown(schedule)
    axes.set_title("strength")
    axes.set_xlabel("percent of the run")
    axes.set_xlim(0, 1)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_yticks(sorted({low, 0.0, high}), [f"{level:.3g}" for level in sorted({low, 0.0, high})])
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
    axes.axhline(0.0, color=INK, linewidth=2)
