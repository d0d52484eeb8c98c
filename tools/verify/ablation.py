"""The paper's ablation on two of the demo's pairs: what each part of the injection does on this checkpoint."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tools import results_prompt as rp
from tools.comfy_client import ComfyClient, PromptResult
from tools.demo_sheet import Panel
from tools.results import whole_figures
from tools.results_tables import Row
from tools.verify.scene import CONTENT, STYLE

PAIRS = ((CONTENT, STYLE), ("content_bay.jpg", rp.STYLES[2]))
VARIANTS = (rp.NOISE, rp.FEATURE, rp.ATTENTION, rp.ADAPTIVE, rp.PARTIAL, rp.FULL)
KINDS = ("feature", "attention")
PICTURES = Path(__file__).absolute().parents[2] / "demo" / "pictures"


class Pair(NamedTuple):
    """A content in a style: its figures by variant, and its pictures, content and style first."""

    rows: tuple[Row, ...]
    panels: tuple[Panel, ...]


def run_pair(client: ComfyClient, content: str, style: rp.Style, settings: rp.Settings) -> Pair:
    """Samples and compares every variant, on a server."""
    api = rp.content_prompt(content, [style], VARIANTS, settings)
    result = client.queue(api)
    rows, panels = [], [_source("content", content, None), _source("style", style.picture, settings.cropped)]
    for _, variant, title in rp.results_of([style], VARIANTS):
        values = whole_figures(result.text(f"{title} - csv"))
        rows.append(Row(rp.name_of(content), style.name, words_of(variant, settings), values, _seconds(result, title)))
        picture = client.image_bytes(result.images(f"{title} - saved")[0])
        panels.append(Panel(words_of(variant, settings), picture))
    return Pair(tuple(rows), tuple(panels))


def words_of(variant: rp.Variant, settings: rp.Settings) -> str:
    """A variant's name; its windows are shares of the run, which has 50 steps in the paper."""
    if variant.settings == rp.NOTHING:
        return "LoRA, nothing injected"
    features, attention = (round(settings.steps * float(variant.settings[f"{kind}_end_percent"])) for kind in KINDS)
    if not attention:
        return f"features, {features} of {settings.steps} steps"
    mode = variant.settings["attention_mode"]
    return f"features, attention {mode} {'after ' if mode == 'adaptive' else ''}{attention} of {settings.steps}"


def _seconds(result: PromptResult, title: str) -> float:
    return result.node_seconds.get(f"{title} - latent", 0.0)


def _source(label: str, name: str, cropped: int | None) -> Panel:
    """A demo picture; cropped: side of the middle that is shown."""
    with Image.open(PICTURES / name) as file:
        edge = 0 if cropped is None else (rp.PICTURE_SIDE - cropped) // 2
        seen = file.convert("RGB") if cropped is None else file.crop((edge, edge, edge + cropped, edge + cropped))
    encoded = io.BytesIO()
    seen.save(encoded, "PNG")
    return Panel(f"{label}: {rp.name_of(name)}", encoded.getvalue())


def claims(pairs: Sequence[Pair], settings: rp.Settings) -> list[tuple[str, str]]:
    """(what the paper says keeps more of the content, in how many pairs it does), by edge agreement."""
    chain = (
        ("attention keeps more than features alone", rp.ATTENTION, rp.FEATURE),
        ("adaptive attention keeps more than stopping at its threshold", rp.ADAPTIVE, rp.ATTENTION),
        ("full attention keeps more than adaptive", rp.FULL, rp.ADAPTIVE),
    )
    found = []
    for words, more, less in chain:
        edges = [{row.variant: row.values["edges"] for row in pair.rows} for pair in pairs]
        holds = sum(of[words_of(more, settings)] > of[words_of(less, settings)] for of in edges)
        found.append((words, f"{holds} of {len(pairs)} pairs"))
    return found
