"""demo/settings.md and settings.csv: means over all pairs, by style, and what each choice costs. Text from numbers."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.results_tables import COLUMNS, spread, table_head, table_row
from tools.settings_prompt import CHOICES, CHOSEN, NOTHING, PAPER


class Row(NamedTuple):
    """One result. values: Compare Result's. seconds: of sampling."""

    content: str
    style: str
    choice: str
    values: Mapping[str, float]
    seconds: float


def report(rows: Sequence[Row], made: str, command: str) -> str:
    """The whole page."""
    contents, styles = list(dict.fromkeys(r.content for r in rows)), list(dict.fromkeys(r.style for r in rows))
    return "\n".join([
        "# Which layers, how long, at 256 pixels",
        "",
        f"{len(contents)} contents ({', '.join(contents)}) in {len(styles)} styles ({', '.join(styles)}),",
        "seed 0, 50 steps, cfg 4, LoRAs of 160 steps, on the demo checkpoint. Written by",
        "",
        f"    {command}",
        "",
        f"in {made}. Every result's figures: [settings.csv](settings.csv).",
        "",
        "At 256 pixels the latent has 32 x 32 cells: decoder layers 0-2 see 4 x 4, 3-5 8 x 8, 6-8 16 x 16, 9-11 all of",
        "it (the paper's 4 and 4-11, at 512, see 16 x 16 and 16 x 16 to 64 x 64). Windows are 60 % and 50 %,",
        "adaptive, where nothing else is said. Edge agreement, SSIM and PSNR are against the content, Gram and colour",
        "distance against the style. Per cent: what a choice gains in edge agreement over nothing injected, and what",
        "of Gram distance that costs.",
        "",
        *chosen(rows),
        "",
        "## Means and deviations over all pairs",
        "",
        *means(rows),
        "",
        "![contents in styles by choice](gallery/settings.png)",
        "",
        "## By style",
        "",
        *by_style(rows),
        "",
    ])  # fmt: skip


def chosen(rows: Sequence[Row]) -> list[str]:
    """What `auto` takes on the demo checkpoint, against the paper's layers."""
    bare, paper, own = (_of(rows, choice.name) for choice in (NOTHING, PAPER, CHOSEN))
    share = {
        metric: (_mean(own, metric) - _mean(bare, metric)) / (_mean(paper, metric) - _mean(bare, metric))
        for metric in ("edges", "gram_filters")
    }
    before = {(row.content, row.style): row.values for row in paper}
    nearer = {
        metric: sum(row.values[metric] < before[row.content, row.style][metric] for row in own)
        for metric in ("gram_filters", "colour")
    }
    kept, cost = (100 * share[metric] for metric in ("edges", "gram_filters"))
    return [
        f"`auto` takes *{CHOSEN.name}* on the demo checkpoint: the finest grid's self-attention alone.",
        f"Of the edge agreement that the paper's layers (*{PAPER.name}*) gain over nothing injected, it has",
        f"{kept:.0f} %, for {cost:.0f} % of what those cost in Gram distance. Against the paper's layers, its",
        f"textures are nearer to the style's in {nearer['gram_filters']} of {len(own)} pairs,",
        f"its colours in {nearer['colour']}.",
    ]


def means(rows: Sequence[Row]) -> list[str]:
    lines = table_head(["injected", *COLUMNS.values(), "edges gained", "style lost", "seconds"])
    bare = _of(rows, NOTHING.name)
    for choice in CHOICES:
        chosen = _of(rows, choice.name)
        cells = [spread([row.values[metric] for row in chosen]) for metric in COLUMNS]
        change = [_mean(chosen, metric) / _mean(bare, metric) - 1.0 for metric in ("edges", "gram_filters")]
        seconds = statistics.fmean(row.seconds for row in chosen)
        lines.append(table_row([choice.name, *cells, *(f"{100 * c:+.0f} %" for c in change), f"{seconds:.0f}"]))
    return lines


def by_style(rows: Sequence[Row]) -> list[str]:
    styles = list(dict.fromkeys(row.style for row in rows))
    lines = table_head(["edge agreement, Gram distance, colour distance", *styles])
    for choice in CHOICES:
        cells = []
        for style in styles:
            chosen = [row for row in _of(rows, choice.name) if row.style == style]
            figures = [_mean(chosen, metric) for metric in ("edges", "gram_filters", "colour")]
            cells.append(", ".join(f"{figure:.3g}" for figure in figures))
        lines.append(table_row([choice.name, *cells]))
    return lines


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """settings.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["content", "style", "injected", *COLUMNS, "seconds"])
        for row in rows:
            writer.writerow([*row[:3], *(f"{row.values[metric]:.6g}" for metric in COLUMNS), f"{row.seconds:.1f}"])


def _of(rows: Sequence[Row], choice: str) -> list[Row]:
    return [row for row in rows if row.choice == choice]


def _mean(rows: Sequence[Row], metric: str) -> float:
    return statistics.fmean(row.values[metric] for row in rows)
