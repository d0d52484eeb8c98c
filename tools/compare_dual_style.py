"""`dev.py compare dual-style`: the dual-style document's comparison on the demo checkpoint, in demo/dual-style.md.

Each content is one prompt on a real server, kept under .host when it is done: an interrupted run goes on with the next.
Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from diffstyler_core.metrics.available import NotAvailable, value_or_reason
from tools import dual_style_prompt as dp
from tools import dual_style_tables as tables
from tools.comparison import kept_folder, run_contents, run_main
from tools.demo import ROOT
from tools.demo_sheet import Panel, save_grid
from tools.devkit.console import duration, say
from tools.devkit.process import interrupts_on_terminate
from tools.dual_style_figures import Clip, Distance, clip_figures, pixel_figures, read_picture
from tools.gallery import machine
from tools.results_prompt import name_of

COMPARISON = "dual-style"


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    options = _parser().parse_args(arguments)
    settings = dp.Settings(steps=options.steps, cfg=options.cfg)
    networks = value_or_reason(Clip, options.clip), value_or_reason(lpips_of, options.lpips)
    runs = run_contents(COMPARISON, dp.CONTENTS, lambda content: dp.content_prompt(content, settings))
    seconds = sum(run["seconds"] for run in runs.values())
    rows = [row for content in dp.CONTENTS for row in rows_of(content, kept_folder(COMPARISON, content), *networks)]
    made, command = f"{duration(seconds)} on {machine()}", " ".join(["python3 tools/dev.py compare", *arguments])
    report = options.output / f"{COMPARISON}.md"
    report.write_text(tables.report(rows, settings, made, command), encoding="utf-8")
    save_grid(grid(), options.output / "gallery" / f"{COMPARISON}.png")
    say(f"  {report}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py compare", description=__doc__)
    standard = dp.Settings()
    parser.add_argument("comparison", choices=[COMPARISON])
    parser.add_argument("--steps", type=int, default=standard.steps, help=f"of the whole run ({standard.steps})")
    parser.add_argument("--cfg", type=float, default=standard.cfg, help=f"decoder guidance ({standard.cfg:g})")
    parser.add_argument("--clip", type=Path, help="folder of a CLIP as transformers saves it, for CLIP's figures")
    parser.add_argument("--lpips", type=Path, help="AlexNet, VGG16 or SqueezeNet of torchvision, for LPIPS")
    parser.add_argument("--output", type=Path, default=ROOT / "demo", help="folder of the report (demo)")
    return parser


def rows_of(content: str, folder: Path, clip: Clip | NotAvailable, lpips: Distance | NotAvailable) -> list[tables.Row]:
    """The figures of a content's pictures."""
    original, rows = read_picture(folder / "content - saved.png"), []
    for result in dp.results():
        picture = read_picture(folder / f"{result.title}.png")
        left, right = (dp.words(style, content) for style in result.pair)
        targets = {"": dp.arranged(result.pair, content), " l.": left, " r.": right}
        figures = pixel_figures(picture, original, lpips)
        figures |= clip_figures(picture, original, dp.source(content), targets, clip)
        rows.append(tables.Row(name_of(content), result, figures))
    return rows


def grid() -> list[list[Panel]]:
    """A row for each content and pair: the content, then every method."""
    rows = []
    for content in dp.CONTENTS:
        folder = kept_folder(COMPARISON, content)
        for pair in dp.PAIRS:
            row = [Panel(f"{name_of(content)}: {' / '.join(pair)}", (folder / "content - saved.png").read_bytes())]
            chosen = (result for result in dp.results() if result.pair == pair)
            row += [Panel(f"{r.method} {r.profile}", (folder / f"{r.title}.png").read_bytes()) for r in chosen]
            rows.append(row)
    return rows


def lpips_of(weights: Path | None) -> Distance:
    """LPIPS over the backbone of a file. Raises NotAvailable where there is none."""
    if weights is None:
        raise NotAvailable("no weights of its network were given (--lpips)")
    if not weights.is_file():
        raise NotAvailable(f"there is no file {weights.name!r}")
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    import nodes as host_nodes
    from tools.pack_loader import load_pack

    lpips: Any = load_pack(host_nodes).host.networks.perceptual.Lpips(weights)
    return lambda result, content: float(lpips.distance(result, content, None))


if __name__ == "__main__":
    run_main(main)
