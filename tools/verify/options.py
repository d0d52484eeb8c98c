"""The options of `dev.py verify`, read before the set-up (so that a slip shows at once) and again by its main."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.devkit.option_types import count
from tools.verify.checkpoint import readable_checkpoint


def verify_parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Check the pack on this machine and a checkpoint of your own: self-checks, speed, memory and the "
        "paper's ablation, in one HTML file to attach to a bug report. What follows -- goes to ComfyUI.",
    )
    parser.add_argument(
        "--checkpoint", type=_checkpoint, metavar="FILE", help="a .safetensors or .ckpt, anywhere (the demo checkpoint)"
    )
    parser.add_argument("--output", type=_folder, metavar="DIR", help="folder of report.html (.host/verify)")
    parser.add_argument("--steps", type=_steps, metavar="N", help="sampling steps, 4 or more (30; with --quick 6)")
    parser.add_argument("--train-steps", type=count, metavar="N", help="training steps (as the templates; quick 20)")
    quick = "few steps, half the size: whether it works, not how it looks"
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def _checkpoint(text: str) -> Path:
    try:
        return readable_checkpoint(Path(text).expanduser().absolute(), text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _folder(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; give a folder, there or not, for report.html")
    return path


def _steps(text: str) -> int:
    if count(text) < 4:
        raise argparse.ArgumentTypeError(f"{text!r}: take 4 steps or more, so that each window has one to act on")
    return count(text)
