"""`dev.py compare methods`: the LoRA way, StyleID, shared attention and InST, compared in demo/methods.md.

Each content is one prompt on a real server, kept under .host when it is done: an interrupted run goes on with the next.
Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools import methods_prompt as mp
from tools import methods_tables as tables
from tools import results_prompt as rp
from tools.comparison import blank, demo_picture, kept_folder, options_of, run_contents, run_main
from tools.demo_sheet import Panel, save_grid
from tools.devkit.console import duration, say
from tools.devkit.process import interrupts_on_terminate
from tools.gallery import machine
from tools.results import whole_figures

COMPARISON = "methods"


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    options = options_of(COMPARISON, __doc__, arguments)
    contents, styles = rp.CONTENTS[: options.contents], rp.STYLES[: options.styles]
    runs = run_contents(COMPARISON, contents, lambda content: mp.content_prompt(content, styles))
    rows = [row for content, run in runs.items() for row in rows_of(content, run, styles)]
    made, command = f"{duration(sum(r['seconds'] for r in runs.values()))} on {machine()}", " ".join(arguments)
    report = options.output / f"{COMPARISON}.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(tables.report(rows, made, f"python3 tools/dev.py compare {command}"), encoding="utf-8")
    tables.write_rows(report.with_suffix(".csv"), rows)
    save_grid(grid(contents, styles), options.output / "gallery" / f"{COMPARISON}.png", side=128)
    say(f"  {report}")
    return 0


def rows_of(content: str, run: dict[str, Any], styles: Sequence[rp.Style] = rp.STYLES) -> list[tables.Row]:
    """The figures and seconds of a content's results, whole pictures."""
    seconds, rows = run["node_seconds"], []
    for style, method, title in mp.results_of(styles):
        trainer = mp.trained_by(style, method)
        training = None if trainer is None else seconds.get(trainer, 0.0)
        preparing = sum(seconds.get(node, 0.0) for node in mp.prepared_by(style, method))
        values = whole_figures(run["texts"][f"{title} - csv"])
        sampling = seconds.get(f"{title} - latent", 0.0)
        rows.append(tables.Row(rp.name_of(content), style.name, method, values, training, preparing, sampling))
    return rows


def grid(contents: Sequence[str], styles: Sequence[rp.Style]) -> list[list[Panel]]:
    """A row for each content: its picture, then for each style every way; above them the style pictures."""
    count = len(mp.METHODS)
    rows = [[Panel("content", blank())]]
    for style in styles:
        rows[0] += [Panel(f"style: {style.name}", demo_picture(style.picture)), *[Panel("", blank())] * (count - 1)]
    for content in contents:
        folder, row = kept_folder(COMPARISON, content), [Panel(rp.name_of(content), demo_picture(content))]
        for _, method, title in mp.results_of(styles):
            row.append(Panel(method.split(",")[0], (folder / f"{title} - saved.png").read_bytes()))
        rows.append(row)
    return rows


if __name__ == "__main__":
    run_main(main)
