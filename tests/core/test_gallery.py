"""`dev.py gallery`: every workflow has its sheet; swapping turns swaps the LoRAs and nothing else."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from tools import gallery
from tools.comfy_client import PromptResult
from tools.demo_sheet import Panel, save_sheet, save_thumbnail
from tools.workflow_api import find_nodes

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "workflows"


def test_every_workflow_has_a_sheet_that_the_readme_or_the_docs_show():
    workflows = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    assert sorted([*(entry.workflow for entry in gallery.SHEETS.values()), *gallery.NOT_RUN]) == workflows
    pages = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in gallery.SHEETS:
        assert (gallery.GALLERY / f"{name}.png").is_file()
        assert f"demo/gallery/{name}.png" in shown


def test_swapped_turns():
    api = json.loads((KEPT / "DiffStyler - two styles by steps.json").read_text(encoding="utf-8"))
    other = gallery.swapped(api)
    first, second = (find_nodes(api, title)[0] for title in gallery.SWITCHES)
    for name in ("lora", "strength", "name"):
        assert other[first]["inputs"][name] == api[second]["inputs"][name]
        assert other[second]["inputs"][name] == api[first]["inputs"][name]
    assert gallery.in_order(api) != gallery.in_order(other)
    assert gallery.swapped(other) == api
    changed = {node for node in api if api[node] != other[node]}
    assert changed == {first, second}
    for node in (first, second):
        for name in ("start_percent", "end_percent", "ramp_in_percent", "ramp_out_percent", "previous"):
            assert other[node]["inputs"].get(name) == api[node]["inputs"].get(name)


def test_the_time_names_the_training():
    api = {"1": {"class_type": "DiffStyler_TrainStyleLoRA", "inputs": {}}, "2": {"class_type": "X", "inputs": {}}}
    result = PromptResult("id", {}, {"1": 61.0, "2": 5.0}, frozenset(), 66.0)
    assert gallery.cost(api, result) == f"{gallery.duration(66.0)}, training {gallery.duration(61.0)} of it"


def panel(tmp_path, label, size, colour):
    path = tmp_path / f"{label}.png"
    Image.new("RGB", size, colour).save(path)
    return Panel(label, path.read_bytes())


def test_a_thumbnail_is_a_square_of_result_content_and_sentence(tmp_path):
    content, result = panel(tmp_path, "Content picture", (300, 200), "red"), panel(tmp_path, "Result", (64, 64), "blue")
    save_thumbnail(content, result, "What this workflow does, in a sentence.", tmp_path / "thumb.jpg")
    with Image.open(tmp_path / "thumb.jpg") as image:
        assert image.size == (512, 512)
        corner, middle = image.getpixel((80, 80)), image.getpixel((300, 300))
        strip = image.crop((0, 430, 512, 512)).convert("L").getextrema()
    assert corner[0] > 200 > 50 > corner[2]
    assert middle[2] > 200 > 50 > middle[0]
    assert strip[0] < 60
    assert strip[1] > 220


@pytest.mark.parametrize("entry", gallery.SHEETS.values(), ids=gallery.SHEETS)
def test_a_shipped_thumbnail_is_square_and_its_sentence_fits(entry):
    with Image.open(ROOT / "workflows" / f"{entry.workflow}.jpg") as image:
        assert image.size == (512, 512)
    assert len(textwrap.wrap(entry.sentence, 40)) <= 2
    assert len({other.sentence for other in gallery.SHEETS.values()}) == len(gallery.SHEETS)


def test_a_footer_stands_below_the_pictures(tmp_path):
    one = [panel(tmp_path, "Result", (300, 300), "blue")]
    heights = []
    for name, footer in (("plain", ""), ("noted", "seed 0")):
        save_sheet(one, tmp_path / f"{name}.png", footer)
        with Image.open(tmp_path / f"{name}.png") as sheet:
            heights.append(sheet.height)
    assert heights[0] < heights[1] < heights[0] + 40
