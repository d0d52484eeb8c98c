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
    "DiffStyler_DDIMInvert": {"spacing"},
    "DiffStyler_Capture": {"cross_attention_layers", "precision", "lora_strength"},
    "DiffStyler_InjectionSettings": {
        "blend",
        "feature_layers",
        "self_attention_layers",
        "cross_attention_layers",
    },
    "DiffStyler_LoraSwitch": {"ramp_in", "ramp_out"},
    "DiffStyler_PreviewStyles": {"mask_grow", "mask_feather"},
    "DiffStyler_FastSAMMask": {"clip_folder", "iou", "image_size"},
    "DiffStyler_InjectedSampler": {"blend", "mask_grow", "mask_feather"},
    "DiffStyler_InjectedGuider": {"blend", "mask_grow", "mask_feather"},
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
        assert set(node["inputs"]) == set(inputs_of(info)), name
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


CHOOSE = """async ([workflow, type]) => {
    await app.loadGraphData(workflow);
    const node = app.graph.nodes.find(node => node.type === type);
    const widget = name => node.widgets.find(widget => widget.name === name);
    const values = () => ['feature_steps', 'attention_steps', 'attention_mode', 'blend'].map(n => widget(n).value);
    const set = (name, value) => { widget(name).value = value; widget(name).callback(value); };
    app.graph.nodes.find(node => node.type === 'DiffStyler_DDIMInvert').widgets[0].value = 20;
    set('preset', 'paper 2024');
    const chosen = values();
    set('attention_steps', 3);
    return [chosen, widget('preset').value, values()];
}"""


SHARES = """() => {
    const node = LiteGraph.createNode('DiffStyler_InjectionSettings');
    app.graph.add(node);
    const widget = name => node.widgets.find(widget => widget.name === name);
    const names = ['feature_end_percent', 'attention_end_percent', 'attention_mode', 'blend'];
    const set = (name, value) => { widget(name).value = value; widget(name).callback(value); };
    const fresh = [widget('preset').value, ...names.map(n => widget(n).value)];
    set('preset', 'take more style');
    const chosen = names.map(n => widget(n).value);
    set('feature_end_percent', 0.9);
    const after = [widget('preset').value, widget('feature_end_percent').value];
    app.graph.remove(node);
    return [fresh, chosen, after];
}"""


def test_injection_settings_fill_shares_of_the_run(page):
    fresh, chosen, after = page.evaluate(SHARES)
    assert fresh == ["paper 2026", 0.6, 0.5, "adaptive", "qk"]
    assert chosen == [0.4, 0.3, "adaptive", "qk"]
    assert after == ["custom", 0.9]


def test_a_preset_fills_its_values_and_a_changed_value_is_custom_again(page):
    workflow = json.loads((WORKFLOWS / "DiffStyler - one style.json").read_text(encoding="utf-8"))
    chosen, preset, after = page.evaluate(CHOOSE, [workflow, "DiffStyler_InjectedSampler"])
    assert chosen == [12, 10, "fixed", "qk"]
    assert preset == "custom"
    assert after == [12, 3, "fixed", "qk"]
