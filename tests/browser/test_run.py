"""A run started in the editor: the nodes say what they did, inside their frame, also when it came from the cache."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.server.small_run import SETTINGS

FILE = Path(__file__).parents[2] / "workflows" / "DiffStyler - one style.json"
WORDS = {
    "DiffStyler_TrainStyleLoRA": ("loss 0.", "DiffStyler/style_"),
    "DiffStyler_DDIMInvert": ("10 UNet evaluations", "dB PSNR"),
    "DiffStyler_Capture": ("feature of layers 4", "self-attention of layers 4-11", "MB in memory"),
    "DiffStyler_InjectedSampler": ("10 steps", "T_a = 500"),
}

OPEN_SMALL = """async ([workflow, settings]) => {
    await app.loadGraphData(workflow);
    for (const node of app.graph.nodes)
        for (const [name, value] of Object.entries(settings[node.type] || {}))
            node.widgets.find(widget => widget.name === name).value = value;
}"""
SHOWN = """() => Object.fromEntries(app.graph.nodes.filter(node => node.type.startsWith('DiffStyler_')).map(node => {
    const box = node.widgets.find(widget => widget.name === '$$node-text-preview');
    return [node.type, box && {text: String(box.value), bottom: box.y + box.computedHeight, height: node.size[1]}];
}))"""
STARTED = "async () => { await app.queuePrompt(0, 1); }"


@pytest.fixture
def run(page, server, tmp_path):
    """Opens the small workflow anew, runs it, and returns what the nodes show; leaves a screenshot."""

    def once(name):
        page.evaluate(OPEN_SMALL, [json.loads(FILE.read_text(encoding="utf-8")), SETTINGS])
        page.evaluate("() => { app.canvas.ds.scale = 0.75; app.canvas.ds.offset = [80, 40]; }")
        before = len(server.client._json("GET", "/history"))
        page.evaluate(STARTED)
        deadline = time.monotonic() + 300
        while len(history := server.client._json("GET", "/history")) == before:
            assert time.monotonic() < deadline, "the run did not end"
            page.wait_for_timeout(500)
        page.wait_for_timeout(1500)
        page.screenshot(path=tmp_path / f"{name}.png")
        assert all(entry["status"]["status_str"] == "success" for entry in history.values())
        return page.evaluate(SHOWN)

    return once


def test_the_nodes_say_what_they_did_inside_their_frame(run):
    for name in ("first", "cached"):
        shown = run(name)
        for node, words in WORDS.items():
            assert shown[node], f"{node} shows no text ({name})"
            assert [word for word in words if word not in shown[node]["text"]] == [], (name, shown[node])
            assert shown[node]["bottom"] <= shown[node]["height"] + 1, (name, node, shown[node])
