"""The options of `dev.py bench`, read before the set-up (so that a slip shows at once) and again by the benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.devkit.option_types import count

PARTS = ("stages", "training", "job", "growth")
MEMORY = "memory"


def bench_parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Measure speed and memory beside other ways to do the same job, and write results.md, results.json "
        "and plots. A part that is run anew replaces its figures, the others stay.",
    )
    parser.add_argument(
        "parts", nargs="*", type=_part, metavar="PART", help=f"{', '.join(PARTS)}; all, if none is named"
    )
    parser.add_argument(
        "--memory", action="store_true", help="peak memory of every stage at SD1.5's full size, and nothing else"
    )
    parser.add_argument("--quick", action="store_true", help="the demo checkpoint at 64 pixels, few steps, one repeat")
    parser.add_argument("--repeats", type=count, metavar="N", help="timed pairs of each comparison (3)")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads (as PyTorch chooses)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the files go (bench)")
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no part; there are {', '.join(PARTS)}")
    return text
