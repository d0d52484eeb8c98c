"""Each node in the editor: it can be added, everything on it explains itself, and its help page is there."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tools.devkit.base import PACK

ADVANCED = {
    "DiffStyler_TrainStyleLoRA": {
        "alpha",
        "weight_decay",
        "targets",
        "batch_size",
        "gradient_checkpointing",
        "precision",
    },
    "DiffStyler_DDIMInvert": {"spacing", "frames_at_once"},
    "DiffStyler_ApplyInjection": {"between"},
    "DiffStyler_ApplyStyles": {"between", "mask_grow", "mask_feather"},
    "DiffStyler_ShareFrames": {"layers"},
    "DiffStyler_Capture": {
        "cross_attention_layers",
        "feature_end_percent",
        "attention_end_percent",
        "precision",
        "lora_strength",
        "values",
        "frames_at_once",
    },
    "DiffStyler_InjectionSettings": {
        "feature_layers",
        "self_attention_layers",
        "cross_attention_layers",
    },
    "DiffStyler_LoraSwitch": {"ramp_in_percent", "ramp_out_percent"},
    "DiffStyler_PreviewStyles": {"mask_grow", "mask_feather"},
    "DiffStyler_FastSAMMask": {"clip_folder", "iou", "image_size"},
    "DiffStyler_InjectedSampler": {"mask_grow", "mask_feather", "frames_at_once"},
    "DiffStyler_InjectedGuider": {"mask_grow", "mask_feather"},
    "DiffStyler_BlendConditionings": {"mask_grow", "mask_feather"},
    "DiffStyler_CycleDiffusionInvert": {"formula", "cfg"},
    "DiffStyler_DescribeStyle": {"precision"},
    "DiffStyler_JointAttention": {"layers"},
    "DiffStyler_StyleFromFeatures": {"start_percent", "end_percent", "strength"},
    "DiffStyler_TrainStyleEmbedding": {"batch_size", "gradient_checkpointing", "precision"},
}
WORKFLOWS = Path(__file__).parents[2] / "workflows"
HELP = sorted((Path(__file__).parents[2] / "web" / "docs").glob("*.md"))

ADD = """type => {
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    return {title: node.title, inputs: node.inputs.map(slot => slot.name), outputs: node.outputs.map(slot => slot.name),
            advanced: (node.widgets || []).filter(w => w.options?.advanced || w.advanced).map(w => w.name)};
}"""


@pytest.fixture(scope="module")
def ours(server):
    """The server's description of our nodes."""
    return {name: info for name, info in server.client.object_info().items() if name.startswith("DiffStyler_")}


def inputs_of(info):
    groups = [info["input"].get(group, {}) for group in ("required", "optional")]
    return {name: (spec[1] if len(spec) > 1 else {}) for group in groups for name, spec in group.items()}


def test_every_node_can_be_added_by_its_type(page, ours):
    for name, info in ours.items():
        node = page.evaluate(ADD, name)
        assert node["title"] == info["display_name"]
        assert {slot for slot in node["inputs"] if "." not in slot} == set(inputs_of(info)), name  # a.b: of a's choice
        assert node["outputs"] == info["output_name"]
        assert set(node["advanced"]) == ADVANCED.get(name, set()), name


def test_everything_has_a_tooltip(ours):
    silent = [f"{node}.{name}" for node, info in ours.items() for name, spec in inputs_of(info).items()
              if not spec.get("tooltip")]  # fmt: skip
    silent += [node for node, info in ours.items() if not info["description"] or not all(info["output_tooltips"])]
    assert silent == []


def test_rare_settings_are_marked_advanced(ours):
    for node, info in ours.items():
        marked = {name for name, spec in inputs_of(info).items() if spec.get("advanced")}
        assert marked == ADVANCED.get(node, set()), node


def test_every_node_has_its_help_page_and_no_page_lacks_its_node(server, ours):
    assert [file.stem for file in HELP] == sorted(ours)
    for file in HELP:
        with urllib.request.urlopen(f"{server.url}/extensions/{PACK}/docs/{file.name}", timeout=60) as answer:
            assert answer.read() == file.read_bytes()
        assert len(file.read_text(encoding="utf-8")) > 200


PRESET = """async workflow => {
    await app.loadGraphData(workflow);
    const sampler = () => app.graph.nodes.find(node => node.type === 'DiffStyler_InjectedSampler');
    const widget = name => sampler().widgets.find(widget => widget.name === name);
    const windows = () =>
        sampler().widgets.filter(w => w.name.startsWith('preset.')).map(w => [w.name, w.value]);
    const queued = async () => {
        const {output} = await app.graphToPrompt();
        const inputs = Object.values(output).find(node => node.class_type === 'DiffStyler_InjectedSampler').inputs;
        return Object.fromEntries(Object.entries(inputs).filter(([name]) => name.startsWith('preset')));
    };
    const set = (name, value) => { widget(name).value = value; widget(name).callback?.(value); };
    const first = [sampler().widgets[0].name, widget('preset').value, windows()];
    set('preset', 'custom');
    const custom = windows();
    set('preset.feature_end_percent', 0.3);
    const typed = await queued();
    await app.loadGraphData(app.graph.serialize());
    const again = await queued();
    app.graph.convertToSubgraph(new Set([sampler()]));
    const inside = await queued();
    await app.loadGraphData(workflow);
    set('preset', 'paper 2024');
    return {first, custom, typed, again, inside, named: await queued()};
}"""


def test_the_preset_comes_first_and_custom_brings_its_values(page):
    """Values are there only where they act: nothing on the node can say other than what is done."""
    workflow = json.loads((WORKFLOWS / "DiffStyler - one style.json").read_text(encoding="utf-8"))
    seen = page.evaluate(PRESET, workflow)
    assert seen["first"] == ["preset", "paper 2026", []]
    values = {"feature_end_percent": 0.6, "attention_end_percent": 0.5, "attention_mode": "adaptive", "blend": "qk"}
    assert dict(seen["custom"]) == {f"preset.{name}": value for name, value in values.items()}
    assert seen["typed"] == {"preset": "custom", **dict(seen["custom"]), "preset.feature_end_percent": 0.3}
    assert seen["again"] == seen["inside"] == seen["typed"]
    assert seen["named"] == {"preset": "paper 2024"}
