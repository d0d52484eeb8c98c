"""demo/dual-style.md: the document's two tables from figures. Pure text from numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from diffstyler_core.metrics.available import NotAvailable
from tools import dual_style_prompt as dp
from tools.dual_style_figures import ROWS, Figures
from tools.results_tables import table_head, table_row


class Row(NamedTuple):
    """The figures of one picture of a content."""

    content: str
    result: dp.Result
    figures: Figures


def report(rows: Sequence[Row], settings: dp.Settings, made: str, command: str) -> str:
    """The whole page."""
    contents = list(dict.fromkeys(row.content for row in rows))
    pairs = " and ".join(" / ".join(pair) for pair in dp.PAIRS)
    return "\n".join([
        "# Two styles in one picture, four ways",
        "",
        f"{len(contents)} contents ({', '.join(contents)}) with the document's two pairs of styles, {pairs}, and its",
        f"prompts: CycleDiffusion of {settings.steps} steps, the noisiest {settings.steps // 10} skipped, eta "
        f"{settings.eta:g} (DDIM's sigma), encoder",
        f"guidance 1, decoder guidance {settings.cfg:g}, seed 0, on the demo checkpoint. Written by",
        "",
        f"    {command}",
        "",
        f"in {made}. The demo checkpoint knows a mosaic, and neither Minecraft, Van Gogh nor Warhol: the figures show",
        "what the methods do to a picture, not how well a style is met.",
        "",
        "- **Cross Attn**: *Blend Conditionings by Mask*. **Epsilon**: *Regional Styles* in the sampler.",
        "- **Pixel**: two separate results, merged by the mask. **2 prompts**: one prompt that names the arrangement.",
        "- Mean and standard error over the contents, each the mean of its pairs. L2 is the distance of all values in",
        "  0..1 (it grows with the side), Smooth. the total variation. CLIP: to the prompt with the arrangement;",
        "  r. and l.: that half to its own style's prompt. DCLIP: the same, as directions from the content.",
        "",
        "## Linear",
        "",
        *table(rows, "linear", (*dp.METHODS, dp.ONE)),
        "",
        f"## Logistic, sharpness {dp.PROFILES['logistic']:g}",
        "",
        *table(rows, "logistic", dp.METHODS),
        "",
        *_reasons(rows),
        "![the contents by every method](gallery/dual-style.png)",
        "",
    ])  # fmt: skip


def table(rows: Sequence[Row], profile: str, methods: Sequence[str]) -> list[str]:
    """A figure a line under its group, a method a column."""
    lines = table_head(["Metric", *methods])
    for group, metrics in ROWS.items():
        lines.append(table_row([f"**{group}**", *("" for _ in methods)]))
        for metric in metrics:
            cells = []
            for method in methods:
                wanted = [r for r in rows if r.result.method == method and r.result.profile in (profile, "")]
                cells.append(_cell(wanted, metric))
            lines.append(table_row([metric, *cells]))
    return lines


def _cell(rows: Sequence[Row], metric: str) -> str:
    """Mean and standard error over contents."""
    by_content: dict[str, list[float]] = {}
    for row in rows:
        value = row.figures[metric]
        if isinstance(value, NotAvailable):
            return "not available"
        by_content.setdefault(row.content, []).append(value)
    means = [statistics.fmean(values) for values in by_content.values()]
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return f"{statistics.fmean(means):.3g} ± {error:.2g}"


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Why figures are not there, each reason once."""
    why: dict[str, list[str]] = {}
    for row in rows[:1]:
        for metric, value in row.figures.items():
            if isinstance(value, NotAvailable):
                why.setdefault(str(value), []).append(metric)
    return [*(f"Not available: {', '.join(metrics)}: {reason}.\n" for reason, metrics in why.items())]
