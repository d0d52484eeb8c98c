"""What the comparisons share: one prompt for each content on a real server, kept under .host when it is done."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tools.comfy_client import Api
from tools.comfy_server import ComfyServer, ServerFailed
from tools.demo import BASE, ROOT, require_pack
from tools.demo_sheet import png_of
from tools.devkit.base import prepare_base
from tools.devkit.console import Failure, say
from tools.results import fingerprint_of, kept_run
from tools.results_prompt import CONTENTS, STYLES, name_of


def kept_folder(comparison: str, content: str) -> Path:
    """Where the run of a content and its pictures are kept."""
    return ROOT / ".host" / comparison / name_of(content)


def run_contents(
    comparison: str, contents: Iterable[str], prompt_of: Callable[[str], Api]
) -> Mapping[str, dict[str, Any]]:
    """The runs of the contents' prompts; an interrupted comparison goes on with the next content."""
    prepare_base(BASE, ROOT)
    log = ROOT / ".host" / "logs" / f"{comparison}-server.log"
    comfyui, fingerprint, runs = Path(os.environ["COMFYUI_PATH"]), fingerprint_of(ROOT), {}
    with ComfyServer(comfyui, base_directory=BASE, extra_args=("--disable-api-nodes",), log_path=log) as server:
        require_pack(server, server.client.object_info())
        for content in contents:
            say(f"\n{content}")
            runs[content] = kept_run(server.client, prompt_of(content), kept_folder(comparison, content), fingerprint)
    return runs


def options_of(comparison: str, described: str | None, arguments: Sequence[str]) -> argparse.Namespace:
    """contents, styles (how many of the first) and output of a comparison over the demo's pairs."""
    parser = argparse.ArgumentParser(prog="dev.py compare", description=described)
    parser.add_argument("comparison", choices=[comparison])
    for name, known in (("contents", CONTENTS), ("styles", STYLES)):
        most = len(known)
        parser.add_argument(f"--{name}", type=int, choices=range(1, most + 1), default=most, help="only the first ones")
    parser.add_argument("--output", type=Path, default=ROOT / "demo", help="folder of the report (demo)")
    return parser.parse_args(arguments)


def demo_picture(name: str) -> bytes:
    """The middle of a demo picture, as PNG: of a style what its methods see, of a content all of it."""
    with Image.open(ROOT / "demo" / "pictures" / name) as file:
        seen = file.crop((128, 128, 384, 384)) if name.startswith("style") else file.convert("RGB")
    return png_of(seen)


def blank() -> bytes:
    """A white picture, as PNG."""
    return png_of(Image.new("RGB", (8, 8), "white"))


def run_main(main: Callable[[Sequence[str]], int]) -> None:
    """Runs a comparison's ``main`` with the command line's arguments and ends the process with its status."""
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failure, ServerFailed) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # the server is stopped by now
        sys.exit(130)
