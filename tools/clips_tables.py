"""demo/clips.md and clips.csv: how steady clips are, frames alone and sharing their attention. Text from numbers."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tools.clips_prompt import ALONE, FRAMES, LOOKINGS
from tools.results_tables import table_head, table_row

COLUMNS = {
    "difference": "warped-frame difference ↓",
    "warping_error": "warping error ↓",
    "edges": "edge agreement ↑",
    "total_variation": "total variation",
    "gram_filters": "Gram distance ↓",
}


class Row(NamedTuple):
    """One clip. difference, warping_error: of the frames; floor, floor_error: of the content itself. The others are
    means of Compare Result's over the frames. seconds: of sampling."""

    content: str
    style: str
    looking: str
    difference: float
    floor: float
    warping_error: float
    floor_error: float
    edges: float
    total_variation: float
    gram_filters: float
    seconds: float


def row_of(content: str, style: str, looking: str, steady: str, figures: str, seconds: float) -> Row:
    """From the tables of Frame Consistency and Compare Result, as CSV."""
    steps = [step for step in csv.DictReader(io.StringIO(steady)) if step["difference"]]
    names = ("difference", "content_difference", "warping_error", "content_warping_error")
    lines = [line for line in csv.DictReader(io.StringIO(figures)) if line["value"] and line["region"] == "whole"]
    kept = {
        metric: statistics.fmean(float(line["value"]) for line in lines if line["metric"] == metric)
        for metric in ("edges", "total_variation", "gram_filters")
    }
    difference, floor, error, floor_error = (statistics.fmean(float(step[name]) for step in steps) for name in names)
    return Row(
        content, style, looking, difference, floor, error, floor_error,
        kept["edges"], kept["total_variation"], kept["gram_filters"], seconds,
    )  # fmt: skip


def report(rows: Sequence[Row], made: str, command: str) -> str:
    """The whole page."""
    contents, styles = list(dict.fromkeys(r.content for r in rows)), list(dict.fromkeys(r.style for r in rows))
    return "\n".join([
        "# Does sharing attention steady a clip?",
        "",
        f"{len(rows)} clips of {FRAMES} frames: the camera moves across {len(contents)} contents",
        f"({', '.join(contents)}) in {len(styles)} styles ({', '.join(styles)}), 20 steps, otherwise as the template",
        "*DiffStyler - short clip*, on the demo checkpoint. Written by",
        "",
        f"    {command}",
        "",
        f"in {made}. Every clip's figures: [clips.csv](clips.csv).",
        "",
        "Warped-frame difference and warping error are *Frame Consistency*'s; the floor is the content clip's own.",
        "A duller picture differs less: total variation says how much detail is left. Looking: what each frame looks",
        "at beside itself in self-attention, all decoder layers; *none* is each frame by itself.",
        "",
        *verdict(rows),
        "",
        "## Means",
        "",
        *means(rows),
        "",
        "## Every clip",
        "",
        *each(rows),
        "",
    ])  # fmt: skip


def verdict(rows: Sequence[Row]) -> list[str]:
    """What each way of looking does against frames by themselves."""
    alone = {(row.content, row.style): row for row in rows if row.looking == ALONE}
    lines = []
    for looking in LOOKINGS[1:]:
        pairs = [
            (row, alone[key]) for row in rows if row.looking == looking and (key := (row.content, row.style)) in alone
        ]
        if pairs:
            change = [statistics.fmean(getattr(a, n) / getattr(b, n) - 1.0 for a, b in pairs) for n in COLUMNS]
            steadier = sum(a.difference < b.difference for a, b in pairs)
            lines.append(
                f"- *{looking}*: steadier in {steadier} of {len(pairs)} clips; warped-frame difference "
                f"{100 * change[0]:+.1f} %, total variation {100 * change[3]:+.1f} %, edge agreement "
                f"{100 * change[2]:+.1f} %, Gram distance {100 * change[4]:+.1f} % (means of the clips' changes)."
            )
    return lines


def means(rows: Sequence[Row]) -> list[str]:
    lines = table_head(["looking", *COLUMNS.values(), "seconds"])
    for looking in LOOKINGS:
        chosen = [row for row in rows if row.looking == looking]
        if chosen:
            values = [f"{statistics.fmean(getattr(row, name) for row in chosen):.4g}" for name in COLUMNS]
            lines.append(table_row([looking, *values, f"{statistics.fmean(row.seconds for row in chosen):.0f}"]))
    return lines


def each(rows: Sequence[Row]) -> list[str]:
    lines = table_head(["content, style", "looking", *COLUMNS.values(), "floor: difference"])
    for row in rows:
        values = [f"{getattr(row, name):.4g}" for name in COLUMNS]
        lines.append(table_row([f"{row.content}, {row.style}", row.looking, *values, f"{row.floor:.4g}"]))
    return lines


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """clips.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
