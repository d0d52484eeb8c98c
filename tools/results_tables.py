"""demo/results.md: means, in how many pairs a claim holds, and table 1. Pure text from numbers."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools import results_prompt as rp


class Row(NamedTuple):
    """One result. values: by Compare Result's keys. seconds: of its sampling."""

    content: str
    style: str
    variant: str
    values: Mapping[str, float]
    seconds: float


class Similar(NamedTuple):
    """Cosine similarity of base and LoRA features, by decoder layer. kind: how the picture stands to the LoRA."""

    kind: str
    picture: str
    lora: str
    cosines: Mapping[int, float]


class Claim(NamedTuple):
    """What the paper says: `metric` is higher with `more` than with `less`."""

    words: str
    metric: str
    more: rp.Variant
    less: rp.Variant


COLUMNS = {
    "edges": "edge agreement ↑",
    "ssim": "SSIM ↑",
    "psnr": "PSNR, dB ↑",
    "gram_filters": "Gram distance ↓",
    "colour": "colour distance ↓",
}
CLAIMS = (
    Claim("the content's noise keeps content", "edges", rp.NOISE, rp.RANDOM),
    Claim("features keep more", "edges", rp.FEATURE, rp.NOISE),
    Claim("attention keeps more", "edges", rp.ATTENTION, rp.FEATURE),
    Claim("adaptive attention keeps more than stopping at its threshold", "edges", rp.ADAPTIVE, rp.ATTENTION),
    Claim("adaptive keeps more content than partial (30/50)", "edges", rp.ADAPTIVE, rp.PARTIAL),
    Claim("full (50/50) keeps more content than adaptive", "edges", rp.FULL, rp.ADAPTIVE),
    Claim("full is farther from the style's textures than adaptive", "gram_filters", rp.FULL, rp.ADAPTIVE),
    Claim("adaptive is farther from the style's textures than partial", "gram_filters", rp.ADAPTIVE, rp.PARTIAL),
    Claim("full is farther from the style's colours than adaptive", "colour", rp.FULL, rp.ADAPTIVE),
    Claim("adaptive is farther from the style's colours than partial", "colour", rp.ADAPTIVE, rp.PARTIAL),
    Claim("the prompt alone is farther from the style's textures", "gram_filters", rp.PROMPT, rp.ADAPTIVE),
    Claim("the prompt alone is farther from the style's colours", "colour", rp.PROMPT, rp.ADAPTIVE),
)


def report(rows: Sequence[Row], similar: Sequence[Similar], made: str) -> str:
    """The whole page."""
    contents, styles = _distinct(row.content for row in rows), _distinct(row.style for row in rows)
    return "\n".join([
        "# What each part of the method does",
        "",
        f"{len(contents)} contents ({', '.join(contents)}) in {len(styles)} styles ({', '.join(styles)}), seed 0,",
        "on the demo checkpoint; the pictures were never trained on. Written by",
        "",
        "    python3 tools/dev.py gallery results",
        "",
        f"in {made}. Every result's figures: [results.csv](results.csv).",
        "",
        "Content: edge agreement (correlation of gradients), SSIM and PSNR against the content picture. Style: Gram",
        "distance of a filter bank and distance of the colour distribution to the style picture. All are Compare",
        "Images' figures, 50 steps, plain inversion, cfg 4, LoRA of 160 steps at strength 1.",
        "",
        "## Means and deviations over all pairs",
        "",
        *means(rows),
        "",
        "![one content in four styles](gallery/ablation.png)",
        "",
        "## What the paper says of it (2026, figures 7 and 8)",
        "",
        *claims(rows),
        "",
        "## By style",
        "",
        *by_style(rows),
        "",
        "## Features under LoRAs (2026, table 1)",
        "",
        "Cosine similarity of a decoder layer's features, base model against LoRA, at t = 540 on the same latent; the",
        "paper's own figures are of Stable Diffusion and 20 pictures.",
        "",
        *similarity(similar),
        "",
    ])  # fmt: skip


def means(rows: Sequence[Row]) -> list[str]:
    lines = table_head(["variant", *COLUMNS.values(), "seconds"])
    for variant in _distinct(row.variant for row in rows):
        chosen = [row for row in rows if row.variant == variant]
        cells = [spread([row.values[metric] for row in chosen]) for metric in COLUMNS]
        seconds = statistics.fmean(row.seconds for row in chosen)
        lines.append(table_row([variant, *cells, f"{seconds:.0f}"]))
    return lines


def claims(rows: Sequence[Row]) -> list[str]:
    lines = table_head(["claim", "figure", "means", "holds in"])
    for claim in CLAIMS:
        pairs = list(zip(_values(rows, claim.more, claim.metric), _values(rows, claim.less, claim.metric), strict=True))
        holds = sum(more > less for more, less in pairs)
        more, less = (statistics.fmean(side) for side in zip(*pairs, strict=True))
        sign = ">" if more > less else "<"
        lines.append(
            table_row([claim.words, COLUMNS[claim.metric][:-2], f"{more:.4g} {sign} {less:.4g}",
                       f"{holds} of {len(pairs)} pairs{'' if more > less else ': **not**'}"])
        )  # fmt: skip
    return lines


def by_style(rows: Sequence[Row]) -> list[str]:
    styles = _distinct(row.style for row in rows)
    lines = table_head(["edge agreement, Gram distance, colour distance", *styles])
    for variant in _distinct(row.variant for row in rows):
        cells = []
        for style in styles:
            chosen = [row.values for row in rows if (row.variant, row.style) == (variant, style)]
            figures = [statistics.fmean(v[metric] for v in chosen) for metric in ("edges", "gram_filters", "colour")]
            cells.append(", ".join(f"{figure:.3g}" for figure in figures))
        lines.append(table_row([variant, *cells]))
    return lines


def similarity(similar: Sequence[Similar]) -> list[str]:
    layers = sorted(similar[0].cosines)
    lines = table_head(["picture", *(f"layer {layer}" for layer in layers), "cases"])
    for kind in _distinct(one.kind for one in similar):
        chosen = [one.cosines for one in similar if one.kind == kind]
        cells = [f"{statistics.fmean(cosines[layer] for cosines in chosen):.4f}" for layer in layers]
        lines.append(table_row([kind, *cells, str(len(chosen))]))
    return lines


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["content", "style", "variant", *COLUMNS, "seconds"])
        for row in rows:
            figures = [f"{row.values[metric]:.6g}" for metric in COLUMNS]
            writer.writerow([row.content, row.style, row.variant, *figures, f"{row.seconds:.1f}"])


def table_head(cells: Sequence[str]) -> list[str]:
    return [table_row(cells), "|" + "---|" * len(cells)]


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _values(rows: Sequence[Row], variant: rp.Variant, metric: str) -> list[float]:
    """In the order of the rows, which is the same for every variant."""
    return [row.values[metric] for row in rows if row.variant == variant.name]


def spread(values: Sequence[float]) -> str:
    """Mean and deviation in words."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3g} ± {deviation:.2g}"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
