"""What `dev.py test` is told: which parts, on which ComfyUI, with which frontend."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import checks, frontends, older_host
from .chromium import find_chromium
from .console import Failure
from .project import oldest_comfyui


def add_test_options(parser: argparse.ArgumentParser) -> None:
    known = ", ".join((*checks.PARTS, checks.OLDER))
    parser.add_argument("parts", nargs="*", type=_part, metavar="PART", help=known)
    parser.add_argument(
        "--comfyui",
        choices=older_host.VERSIONS,
        help="an older ComfyUI, set up under .host/; one that the pack refuses runs the part 'older'",
    )
    parser.add_argument(
        "--frontend",
        type=_frontend,
        metavar="VERSION|newest",
        help="the browser tests on that frontend of the package index in place of the one that the host pins",
    )


def chosen_parts(root: Path, parts: Sequence[str], comfyui: str | None, frontend: str | None) -> tuple[str, ...]:
    """The parts to run. Raises Failure for those that cannot run there."""
    refused = comfyui is not None and _numbers(comfyui) < oldest_comfyui(root / "pyproject.toml")
    if refused and set(parts) - {checks.OLDER}:
        raise Failure(
            "choose the parts",
            f"the pack does not load on ComfyUI {comfyui}.",
            f"of the parts only '{checks.OLDER}' runs there: that the pack says so. Name it, or none.",
        )
    if not refused and checks.OLDER in parts:
        too_old = [known for known in older_host.VERSIONS if _numbers(known) < oldest_comfyui(root / "pyproject.toml")]
        raise Failure(
            "choose the parts",
            f"'{checks.OLDER}' looks at a ComfyUI that is too old for the pack.",
            f"name one: --comfyui {too_old[0]}",
        )
    if refused:
        return (checks.OLDER,)
    if parts:
        return tuple(parts)
    if frontend is not None:
        return ("browser",)
    return checks.PARTS if comfyui is None else checks.SUITES


def wanted_frontends(parts: Sequence[str], told: str | None) -> dict[str, str]:
    """Part -> the version of the frontend that it wants fetched."""
    if find_chromium() is None:
        return {}
    return {
        part: version
        for part, version in (("browser", told), (checks.FRONTEND, frontends.TRIED))
        if version is not None and part in parts
    }


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _part(text: str) -> str:
    known = (*checks.PARTS, checks.OLDER)
    if text not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is no part; there are {', '.join(known)}")
    return text


def _frontend(text: str) -> str:
    if not frontends.is_version(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a version, such as {frontends.TRIED}, nor 'newest'")
    return text
