"""A result's figures as people read them: rows of a table, lines of text, CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .csv_table import csv_text
from .metric import STYLE, Figure
from .regions import NAMES

HEADER = ("result", "metric", "better", "against", "region", "value", "not_available")


class Row(NamedTuple):
    """A metric and what it is measured against, with a cell for each region."""

    metric: str
    better: str
    against: str
    cells: list[str]


def rows_of(figures: Sequence[Figure]) -> tuple[list[str], list[Row]]:
    """(regions, rows). A metric that no style has a value of gets one row for all of them."""
    regions = [name for name in NAMES if any(f.region == name for f in figures)]
    there = {f.metric.key for f in figures if f.value is not None}
    rows: dict[tuple[str, str], Row] = {}
    for f in figures:
        against = STYLE if f.against.of_style and f.metric.key not in there else f.against
        empty = Row(f.metric.name, f.metric.better, against.name, ["n/a"] * len(regions))
        rows.setdefault((f.metric.key, against.name), empty).cells[regions.index(f.region)] = number(f.value)
    return regions, list(rows.values())


def unavailable(figures: Sequence[Figure]) -> list[str]:
    """'not available: METRICS: why', with the regions where it is not so for all of them."""
    every = {f.region for f in figures}
    missing: dict[tuple[str, str], list[str]] = {}
    for f in figures:
        if f.value is None:
            missing.setdefault((f.metric.name, f.why), []).append(f.region)
    lines: dict[tuple[str, str], list[str]] = {}
    for (name, why), regions in missing.items():
        where = "" if set(regions) == every else ", ".join(dict.fromkeys(regions))
        lines.setdefault((where, why), []).append(name)
    return [f"not available{f' {at}' if at else ''}: {', '.join(names)}: {why}" for (at, why), names in lines.items()]


def number(value: float | None) -> str:
    """Four digits; 'n/a' for a figure that is not there."""
    return "n/a" if value is None else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def describe(title: str, figures: Sequence[Figure]) -> str:
    """A line for each metric with its regions, then what is not available and why."""
    lines: dict[str, list[str]] = {}
    for f in figures:
        if f.value is not None:
            name = f.metric.words + (f", {f.against.name}" if f.against.of_style else "")
            lines.setdefault(name, []).append(f"{f.region} {number(f.value)}")
    text = [title, *(f"{name}: {', '.join(cells)}" for name, cells in lines.items())]
    return "\n".join([*text, *unavailable(figures)])


def figures_table(results: Sequence[Sequence[Figure]]) -> str:
    """CSV of several results, a row for each figure; an empty value is not available, and the last column says why."""
    rows = [
        (i, f.metric.key, f.metric.better, f.against.name, f.region, "" if f.value is None else float(f.value), f.why)
        for i, figures in enumerate(results, 1)
        for f in figures
    ]
    return csv_text(HEADER, rows)
