"""The pack's workflows in the real editor: nothing missing, and what it queues is what tools/workflow_api.py makes."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tools.devkit.base import PACK
from tools.workflow_api import to_api

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "workflows").glob("*.json"))
each_workflow = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

LACKING = {
    "DiffStyler - DEADiff style of a picture": {
        "CheckpointLoaderSimple", "CLIPVisionLoader", "DiffStyler_LoadDEADiff"
    },
    "DiffStyler - one style (SD1.5)": {"CheckpointLoaderSimple"},
    "DiffStyler - one style (SDXL)": {"CheckpointLoaderSimple"},
}  # fmt: skip
"""What names a model that is not in the pack, by workflow."""

STATE = """() => app.graph.nodes.map(node => ({
    id: node.id, type: node.type, known: node.type in LiteGraph.registered_node_types,
    failed: !!node.has_errors, inputs: (node.inputs || []).map((slot, i) => [slot.name, node.isInputConnected(i)]),
}))"""


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def opened(page, workflow):
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(workflow["nodes"]))


def fetch(server, path):
    with urllib.request.urlopen(server.url + urllib.parse.quote(path), timeout=60) as answer:
        return answer.read()


@pytest.mark.every_frontend
@each_workflow
def test_a_workflow_opens_with_nothing_missing(page, file):
    workflow = read(file)
    opened(page, workflow)
    nodes = page.evaluate(STATE)
    assert [node["type"] for node in nodes if not node["known"]] == []
    assert {node["type"] for node in nodes if node["failed"]} == LACKING.get(file.stem, set())
    linked = {(int(node["id"]), name) for node in nodes for name, link in node["inputs"] if link}
    slots = {node["id"]: [slot["name"] for slot in node.get("inputs", ())] for node in workflow["nodes"]}
    assert linked == {(link[3], slots[link[3]][link[4]]) for link in workflow["links"]}
    assert "Missing" not in page.locator("[role=dialog]").all_inner_texts().__str__()


@pytest.mark.every_frontend
@each_workflow
def test_the_editor_the_tool_and_the_kept_form_agree(page, server, file):
    opened(page, read(file))
    queued = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert queued == to_api(read(file), server.client.object_info())
    assert queued == read(ROOT / "tests" / "workflows" / file.name)


def test_the_template_browser_lists_them(server):
    listed = json.loads(fetch(server, "/api/workflow_templates"))
    assert sorted(listed[PACK]) == sorted(file.stem for file in FILES)
    for file in FILES:
        assert json.loads(fetch(server, f"/api/workflow_templates/{PACK}/{file.name}")) == read(file)


@each_workflow
def test_a_template_has_a_picture(server, file):
    assert file.with_suffix(".jpg").is_file(), "the template browser shows an empty card without it"
    assert fetch(server, f"/api/workflow_templates/{PACK}/{file.stem}.jpg")[:3] == b"\xff\xd8\xff"
