"""The report: one HTML file with its pictures in it. Pure text from what was found."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tools.results_tables import COLUMNS
from tools.results_tables import Row as ResultRow
from tools.verify.outcome import Outcome
from tools.verify.stages import Row as StageRow

GOOD, BAD = "passed", "FAILED"
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 68em; padding: 0 1em; }
table { border-collapse: collapse; margin: .8em 0; }
td, th { border: 1px solid #bbb; padding: .25em .6em; text-align: left; vertical-align: top; }
.FAILED { background: #fdd; font-weight: bold; } .passed { background: #dfd; }
img { max-width: 100%; } pre { background: #f4f4f4; padding: .6em; overflow-x: auto; white-space: pre-wrap; }
"""


@dataclass
class Report:
    """What `verify` found. problems: what did not run, in words. sheet: a JPEG. log: the server's."""

    about: Mapping[str, str]
    checks: list[Outcome] = field(default_factory=list)
    stages: Sequence[StageRow] = ()
    results: Sequence[ResultRow] = ()
    claims: Sequence[tuple[str, str]] = ()
    sheet: bytes = b""
    problems: list[tuple[str, str]] = field(default_factory=list)
    log: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check holds, and nothing failed to run."""
        return bool(self.checks) and all(check.passed for check in self.checks) and not self.problems

    @property
    def verdict(self) -> str:
        """In a sentence."""
        held = sum(check.passed for check in self.checks)
        failed = f"; {len(self.problems)} part(s) did not run to the end" if self.problems else ""
        return f"{held} of {len(self.checks)} self-checks passed{failed}."


def html_of(report: Report) -> str:
    """The whole page."""
    return "\n".join([
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>DiffStyler verify</title>'
        f"<style>{STYLE}</style></head><body>",
        "<h1>DiffStyler verify</h1>",
        f'<p class="{GOOD if report.passed else BAD}">{escape(report.verdict)}</p>',
        *_table(("", ""), report.about.items()),
        "<h2>Self-checks</h2>",
        "<p>Gaps are norms of differences of latents, relative to the other result's norm.</p>",
        *_table(("what holds", "figure", "bound", "result"), map(_check_cells, report.checks)),
        *_stages(report.stages),
        *_ablation(report),
        *_problems(report.problems),
        f"<details><summary>The server's log</summary><pre>{escape(report.log)}</pre></details>",
        "</body></html>\n",
    ])  # fmt: skip


def text_of(report: Report) -> str:
    """What failed and the verdict, for a terminal that has shown the rest."""
    lines = [f"  {BAD}  {one.claim}: {one.error or one.figure}" for one in report.checks if not one.passed]
    claims = {one.claim for one in report.checks}
    lines += [f"  {BAD}  {part}: {text.splitlines()[0]}" for part, text in report.problems if part not in claims]
    return "\n".join([*lines, report.verdict])


def _check_cells(check: Outcome) -> tuple[str, str, str, str]:
    return check.claim, check.error or check.figure, check.bound, GOOD if check.passed else BAD


def _stages(rows: Sequence[StageRow]) -> list[str]:
    if not rows:
        return []
    cells = [(row.name, f"{row.seconds:.3f} s", _ratio(row), _gigabytes(row.gpu), _gigabytes(row.ram)) for row in rows]
    heads = ("stage", "a step", "ratio", "most GPU memory", "most RAM of the server")
    return [
        "<h2>Speed and memory</h2>",
        "<p>Seconds of a step; medians of runs in turns. Ratios are to the host's own sampler in the same run, step "
        "for step; the host's Load LoRA patches the weights at the start of its runs. A step of training is a forward "
        "and a backward pass over its batch. GPU memory is what torch's allocator held. The whole server's RAM counts, "
        "with the models and results that it keeps.</p>",
        *_table(heads, cells),
    ]


def _ratio(row: StageRow) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f} x {row.peer}"


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f} GB"


def _ablation(report: Report) -> list[str]:
    if not report.results:
        return []
    heads = ("content", "style", "variant", *COLUMNS.values(), "seconds")
    cells = [
        (row.content, row.style, row.variant, *(f"{row.values[name]:.3g}" for name in COLUMNS), f"{row.seconds:.1f}")
        for row in report.results
    ]
    picture = base64.b64encode(report.sheet).decode("ascii")
    return [
        "<h2>The paper's ablation</h2>",
        "<p>Two of the pack's pairs, seed 0. Figures are Compare Images': content by edges, SSIM and PSNR, style by "
        "textures (Gram distance) and colours. demo/results.md has those of the demo checkpoint.</p>",
        f'<img alt="the variants of both pairs" src="data:image/jpeg;base64,{picture}">',
        *_table(heads, cells),
        *_table(("the paper says", "here"), report.claims),
    ]


def _problems(problems: Sequence[tuple[str, str]]) -> list[str]:
    if not problems:
        return []
    return [
        "<h2>What did not run to the end</h2>",
        *(f"<h3>{escape(part)}</h3><pre>{escape(text)}</pre>" for part, text in problems),
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["<table>"]
    if any(heads):
        lines.append(f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>")
    for row in rows:
        mark = f' class="{row[-1]}"' if row[-1] in (GOOD, BAD) else ""
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row[:-1])
        lines.append(f"<tr>{cells}<td{mark}>{escape(str(row[-1]))}</td></tr>")
    return [*lines, "</table>"]
