"""`dev.py gallery results`: what each part of the method does, measured on the demo checkpoint, in demo/results.md.

Every content in every style by every variant, on a real server; one prompt for each content, kept under .host when it
is done, so that an interrupted run goes on with the next. Figures are Compare Result's own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tools import results_prompt as rp
from tools import results_tables as tables
from tools.comfy_client import Api, ComfyClient
from tools.demo import ROOT, run_prompt
from tools.demo_sheet import Panel, save_grid
from tools.devkit.console import duration, say

KEPT = ROOT / ".host" / "results"
METRICS = ("edges", "ssim", "psnr", "gram_filters", "colour")
SHOWN = "content_astronaut.jpg"
SHEET = "ablation.png"


def make_results(client: ComfyClient, gallery: Path, report: Path, machine: str) -> None:
    """Runs what is not kept yet; writes the report, a table of all results beside it, and the sheet."""
    fingerprint = fingerprint_of(ROOT)
    runs = []
    for content in rp.CONTENTS:
        say(f"\n{content}")
        api = rp.content_prompt(content)
        runs.append(kept_run(client, api, KEPT / rp.name_of(content), fingerprint))
    say("\nfeature similarity")
    seen = kept_run(client, rp.similarity_prompt(), KEPT / "similarity", fingerprint)
    rows = [row for content, run in zip(rp.CONTENTS, runs, strict=True) for row in rows_of(content, run)]
    similar = similarities_of(seen)
    seconds = sum(run["seconds"] for run in (*runs, seen))
    report.write_text(tables.report(rows, similar, f"{duration(seconds)} on {machine}"), encoding="utf-8")
    tables.write_rows(report.with_suffix(".csv"), rows)
    save_grid(grid_of(KEPT / rp.name_of(SHOWN)), gallery / SHEET)
    say(f"  {report}")


def fingerprint_of(root: Path) -> str:
    """Of the checkpoint, its pictures and the code: another one is another result."""
    files = sorted(path for folder in ("nodes", "diffstyler_core") for path in (root / folder).rglob("*.py"))
    files += sorted((root / "demo").glob("*.safetensors")) + sorted((root / "demo" / "pictures").glob("*.jpg"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def kept_run(client: ComfyClient, api: Api, folder: Path, fingerprint: str) -> dict[str, Any]:
    """The texts and seconds of a prompt, its pictures in `folder`; from there, where it was run before."""
    key = hashlib.sha256((fingerprint + json.dumps(api, sort_keys=True)).encode()).hexdigest()
    record = folder / "run.json"
    if record.is_file():
        before: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if before["key"] == key:
            say("  done before")
            return before
    result = run_prompt(client, api)
    folder.mkdir(parents=True, exist_ok=True)
    for node_id, node in api.items():
        if node["class_type"] == "PreviewImage":
            (folder / f"{node_id}.png").write_bytes(client.image_bytes(result.images(node_id)[0]))
    texts = {node_id: result.text(node_id) for node_id, node in api.items() if node["class_type"] == "PreviewAny"}
    run = {"key": key, "seconds": result.seconds, "texts": texts, "node_seconds": result.node_seconds}
    record.write_text(json.dumps(run, indent=1), encoding="utf-8")
    return run


def whole_figures(text: str) -> dict[str, float]:
    """METRICS of a whole picture, from Compare Result's CSV."""
    table = csv.DictReader(io.StringIO(text))
    found = {line["metric"]: float(line["value"]) for line in table if line["value"] and line["region"] == "whole"}
    return {metric: found[metric] for metric in METRICS}


def rows_of(
    content: str, run: dict[str, Any], styles: Sequence[rp.Style] = rp.STYLES,
    variants: Sequence[rp.Variant] = rp.VARIANTS,
) -> list[tables.Row]:  # fmt: skip
    """The figures of a content's results, whole pictures."""
    rows = []
    for style, variant, title in rp.results_of(styles, variants):
        values = whole_figures(run["texts"][f"{title} - csv"])
        seconds = run["node_seconds"].get(f"{title} - latent", 0.0)
        rows.append(tables.Row(rp.name_of(content), style.name, variant.name, values, seconds))
    return rows


def similarities_of(run: dict[str, Any], styles: Sequence[rp.Style] = rp.STYLES) -> list[tables.Similar]:
    """Table 1's cosines, of each picture under each LoRA."""
    found = []
    for picture in rp.seen_pictures(styles):
        for style in styles:
            text = run["texts"][f"{rp.similarity_title(picture, style)} - csv"]
            cosines = {int(line["layer"]): float(line["cosine_whole"]) for line in csv.DictReader(io.StringIO(text))}
            kind = "in-domain" if picture == style.picture else "another style"
            kind = "a content" if picture in rp.CONTENTS else kind
            found.append(tables.Similar(kind, rp.name_of(picture), style.name, cosines))
    return found


def grid_of(folder: Path) -> list[list[Panel]]:
    """A row for each style: the style picture, then its results by variant."""
    rows = []
    for style in rp.STYLES:
        with Image.open(ROOT / "demo" / "pictures" / style.picture) as file:
            middle = file.crop((128, 128, 384, 384))
        encoded = io.BytesIO()
        middle.save(encoded, "PNG")
        row = [Panel(style.name, encoded.getvalue())]
        row += [
            Panel(variant.name, (folder / f"{title} - saved.png").read_bytes())
            for of, variant, title in rp.results_of() if of == style
        ]  # fmt: skip
        rows.append(row)
    return rows
