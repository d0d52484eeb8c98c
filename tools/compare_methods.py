"""`dev.py compare methods`: the LoRA way, StyleID, shared attention and InST, compared in demo/methods.md.

Each content is one prompt on a real server, kept under .host when it is done: an interrupted run goes on with the next.
Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools import methods_prompt as mp
from tools import methods_tables as tables
from tools import results_prompt as rp
from tools.comfy_server import ComfyServer, ServerFailed
from tools.demo import BASE, ROOT, require_pack
from tools.demo_sheet import Panel, save_grid
from tools.devkit.base import prepare_base
from tools.devkit.console import Failure, duration, say
from tools.devkit.process import interrupts_on_terminate
from tools.gallery import machine
from tools.results import METRICS, fingerprint_of, kept_run

COMPARISON = "methods"
KEPT = ROOT / ".host" / COMPARISON


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    options = _parser().parse_args(arguments)
    contents, styles = rp.CONTENTS[: options.contents], rp.STYLES[: options.styles]
    prepare_base(BASE, ROOT)
    log = ROOT / ".host" / "logs" / f"{COMPARISON}-server.log"
    comfyui, fingerprint, runs = Path(os.environ["COMFYUI_PATH"]), fingerprint_of(ROOT), []
    with ComfyServer(comfyui, base_directory=BASE, extra_args=("--disable-api-nodes",), log_path=log) as server:
        require_pack(server, server.client.object_info())
        for content in contents:
            say(f"\n{content}")
            api = mp.content_prompt(content, styles)
            runs.append(kept_run(server.client, api, KEPT / rp.name_of(content), fingerprint))
    rows = [row for content, run in zip(contents, runs, strict=True) for row in rows_of(content, run, styles)]
    made, command = f"{duration(sum(r['seconds'] for r in runs))} on {machine()}", " ".join(arguments)
    report = options.output / f"{COMPARISON}.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(tables.report(rows, made, f"python3 tools/dev.py compare {command}"), encoding="utf-8")
    tables.write_rows(report.with_suffix(".csv"), rows)
    save_grid(grid(contents, styles), options.output / "gallery" / f"{COMPARISON}.png", side=128)
    say(f"  {report}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py compare", description=__doc__)
    parser.add_argument("comparison", choices=[COMPARISON])
    for name, known in (("contents", rp.CONTENTS), ("styles", rp.STYLES)):
        most = len(known)
        parser.add_argument(f"--{name}", type=int, choices=range(1, most + 1), default=most, help="only the first ones")
    parser.add_argument("--output", type=Path, default=ROOT / "demo", help="folder of the report (demo)")
    return parser


def rows_of(content: str, run: dict[str, Any], styles: Sequence[rp.Style] = rp.STYLES) -> list[tables.Row]:
    """The figures and seconds of a content's results, whole pictures."""
    seconds, rows = run["node_seconds"], []
    for style, method, title in mp.results_of(styles):
        table = csv.DictReader(io.StringIO(run["texts"][f"{title} - csv"]))
        found = {line["metric"]: float(line["value"]) for line in table if line["value"] and line["region"] == "whole"}
        trainer = mp.trained_by(style, method)
        training = None if trainer is None else seconds.get(trainer, 0.0)
        preparing = sum(seconds.get(node, 0.0) for node in mp.prepared_by(style, method))
        values = {metric: found[metric] for metric in METRICS}
        sampling = seconds.get(f"{title} - latent", 0.0)
        rows.append(tables.Row(rp.name_of(content), style.name, method, values, training, preparing, sampling))
    return rows


def grid(contents: Sequence[str], styles: Sequence[rp.Style]) -> list[list[Panel]]:
    """A row for each content: its picture, then for each style every way; above them the style pictures."""
    count = len(mp.METHODS)
    rows = [[Panel("content", _blank())]]
    for style in styles:
        rows[0] += [Panel(f"style: {style.name}", _picture(style.picture)), *[Panel("", _blank())] * (count - 1)]
    for content in contents:
        folder, row = KEPT / rp.name_of(content), [Panel(rp.name_of(content), _picture(content))]
        for _, method, title in mp.results_of(styles):
            row.append(Panel(method.split(",")[0], (folder / f"{title} - saved.png").read_bytes()))
        rows.append(row)
    return rows


def _picture(name: str) -> bytes:
    """The middle of a demo picture, as PNG: of a style what its methods see, of a content all of it."""
    with Image.open(ROOT / "demo" / "pictures" / name) as file:
        seen = file.crop((128, 128, 384, 384)) if name.startswith("style") else file.convert("RGB")
    return _png(seen)


def _blank() -> bytes:
    return _png(Image.new("RGB", (8, 8), "white"))


def _png(picture: Image.Image) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failure, ServerFailed) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # the server is stopped by now
        sys.exit(130)
