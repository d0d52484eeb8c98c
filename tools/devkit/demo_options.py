"""The options of `dev.py demo`, read before the set-up (so that a slip shows at once) and again by tools/demo.py."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_WORKFLOW = "DiffStyler - one style"


def demo_parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Run a workflow of the pack on a real ComfyUI server and save its pictures side by side.",
    )
    parser.add_argument("--content", type=_picture, metavar="FILE", help="the picture to restyle")
    parser.add_argument(
        "--style",
        type=_picture,
        metavar="FILE",
        action="append",
        default=[],
        help="the picture whose style is learnt; a second one for workflows with two styles",
    )
    parser.add_argument(
        "--mask", type=_picture, metavar="FILE", help="white where the (first) style goes, for workflows with a mask"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="what the result is to show")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="a checkpoint: a path, or a name in ComfyUI's models/checkpoints"
    )
    parser.add_argument("--steps", type=_count, metavar="N", help="sampling steps")
    parser.add_argument("--train-steps", type=_count, metavar="N", help="training steps of the style LoRA")
    parser.add_argument(
        "--set", action="append", default=[], type=_assignment, metavar="'NODE.INPUT=VALUE'",
        help="set any input of a node, named by its title or class; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--workflow", default=DEFAULT_WORKFLOW, metavar="NAME", help=f"of workflows/, or a path ('{DEFAULT_WORKFLOW}')"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the pictures go (.host/demo-output)")
    parser.add_argument("--open", action="store_true", help="leave the server up afterwards, until Ctrl-C")
    return parser


def _picture(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path.absolute()


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _assignment(text: str) -> tuple[str, str, str]:
    target, equals, value = text.partition("=")
    node, dot, name = target.rpartition(".")
    if not (equals and dot and node and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NODE.INPUT=VALUE")
    return node, name, value
