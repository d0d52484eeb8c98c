"""`dev.py compare settings`: which layers and windows suit the demo checkpoint at its size, in demo/settings.md.

Each content is one prompt on a real server, kept under .host when it is done: an interrupted run goes on with the next.
Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools import results_prompt as rp
from tools import settings_prompt as sp
from tools import settings_tables as tables
from tools.comparison import blank, demo_picture, kept_folder, options_of, run_contents, run_main
from tools.demo_sheet import Panel, save_grid
from tools.devkit.console import duration, say
from tools.devkit.process import interrupts_on_terminate
from tools.gallery import machine
from tools.results import whole_figures

COMPARISON = "settings"


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    options = options_of(COMPARISON, __doc__, arguments)
    contents, styles = rp.CONTENTS[: options.contents], rp.STYLES[: options.styles]
    runs = run_contents(COMPARISON, contents, lambda content: sp.content_prompt(content, styles))
    rows = [row for content, run in runs.items() for row in rows_of(content, run, styles)]
    made, command = f"{duration(sum(r['seconds'] for r in runs.values()))} on {machine()}", " ".join(arguments)
    report = options.output / f"{COMPARISON}.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    words = tables.report(rows, made, f"python3 tools/dev.py compare {command}")
    report.write_text(words, encoding="utf-8")
    tables.write_rows(report.with_suffix(".csv"), rows)
    save_grid(grid(contents, styles), options.output / "gallery" / f"{COMPARISON}.png", side=112)
    say(f"  {report}")
    return 0


def rows_of(content: str, run: dict[str, Any], styles: Sequence[rp.Style] = rp.STYLES) -> list[tables.Row]:
    """The figures and seconds of a content's results, whole pictures."""
    rows = []
    for style, choice, title in sp.results_of(styles):
        values = whole_figures(run["texts"][f"{title} - csv"])
        seconds = run["node_seconds"].get(f"{title} - latent", 0.0)
        rows.append(tables.Row(rp.name_of(content), style.name, choice.name, values, seconds))
    return rows


def grid(contents: Sequence[str], styles: Sequence[rp.Style]) -> list[list[Panel]]:
    """A row for each content and style: the two pictures, then every choice."""
    rows = []
    for content in contents:
        folder = kept_folder(COMPARISON, content)
        for style in styles:
            row = [Panel(rp.name_of(content), demo_picture(content)), Panel(style.name, demo_picture(style.picture))]
            titles = [(choice, title) for of, choice, title in sp.results_of(styles) if of == style]
            row += [Panel(c.short, (folder / f"{title} - saved.png").read_bytes()) for c, title in titles]
            rows.append(row)
    return rows or [[Panel("", blank())]]


if __name__ == "__main__":
    run_main(main)
