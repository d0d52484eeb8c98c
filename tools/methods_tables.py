"""demo/methods.md and methods.csv: means over all pairs, and by style. Pure text from numbers."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.methods_prompt import METHODS
from tools.results_tables import COLUMNS, spread, table_head, table_row


class Row(NamedTuple):
    """One result. values: Compare Result's. Seconds of training (None: there is none), of the inversions and captures,
    and of sampling; 0 where ComfyUI had it from an earlier prompt."""

    content: str
    style: str
    method: str
    values: Mapping[str, float]
    training: float | None
    preparing: float
    sampling: float


def report(rows: Sequence[Row], made: str, command: str) -> str:
    """The whole page."""
    contents, styles = list(dict.fromkeys(r.content for r in rows)), list(dict.fromkeys(r.style for r in rows))
    return "\n".join([
        "# Four ways to a style",
        "",
        f"{len(contents)} contents ({', '.join(contents)}) in {len(styles)} styles ({', '.join(styles)}),",
        "seed 0, 50 steps, on the demo checkpoint. Written by",
        "",
        f"    {command}",
        "",
        f"in {made}. Every result's figures: [methods.csv](methods.csv).",
        "",
        "The LoRA way: a LoRA of 160 steps, preset paper 2026, cfg 4. StyleID (query blend 0.75, temperature 1.5,",
        "AdaIN of the start) and shared attention (swap, normalised): no training, layers 6-11, empty prompt, cfg 1.",
        "InST: two vectors of textual inversion by 100 steps, stochastic inversion to 0.7, DDIM, cfg 4.",
        "Edge agreement, SSIM and PSNR are against the content, Gram and colour distance against the style. Each way",
        "keeps as much content as its settings say, so a row is one point of its way, not its best.",
        "",
        "## Means and deviations over all pairs",
        "",
        *means(rows),
        "",
        "Seconds: training once for each style; before: the inversions and captures that the way needs, once for each",
        "picture; sampling: each result.",
        "",
        "![contents in styles by four ways](gallery/methods.png)",
        "",
        "## By style",
        "",
        *by_style(rows),
        "",
    ])  # fmt: skip


def means(rows: Sequence[Row]) -> list[str]:
    lines = table_head(["way", *COLUMNS.values(), "training, s", "before, s", "sampling, s"])
    for method in METHODS:
        chosen = [row for row in rows if row.method == method]
        cells = [spread([row.values[metric] for row in chosen]) for metric in COLUMNS]
        trained = [row.training for row in chosen if row.training is not None]
        before, sampling = [row.preparing for row in chosen], [row.sampling for row in chosen]
        seconds = _measured(trained), _measured(before, max), _measured(sampling)
        lines.append(table_row([method, *cells, *seconds]))
    return lines


def by_style(rows: Sequence[Row]) -> list[str]:
    styles = list(dict.fromkeys(row.style for row in rows))
    lines = table_head(["edge agreement, Gram distance, colour distance", *styles])
    for method in METHODS:
        cells = []
        for style in styles:
            chosen = [row.values for row in rows if (row.method, row.style) == (method, style)]
            figures = [statistics.fmean(v[metric] for v in chosen) for metric in ("edges", "gram_filters", "colour")]
            cells.append(", ".join(f"{figure:.3g}" for figure in figures))
        lines.append(table_row([method, *cells]))
    return lines


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["content", "style", "method", *COLUMNS, "training", "before", "sampling"])
        for row in rows:
            figures = [f"{row.values[metric]:.6g}" for metric in COLUMNS]
            training = "" if row.training is None else f"{row.training:.1f}"
            writer.writerow([*row[:3], *figures, training, f"{row.preparing:.1f}", f"{row.sampling:.1f}"])


def _measured(seconds: Sequence[float], of: Callable[[Sequence[float]], float] = statistics.fmean) -> str:
    """The seconds that were spent in these runs; those that were had from before are not counted."""
    spent = [second for second in seconds if second >= 0.05]
    if spent:
        return f"{of(spent):.0f}" if of(spent) >= 10 else f"{of(spent):.1f}"
    return "none" if not seconds else "kept"
