"""The layout of the shipped workflows, in both renderings: nothing is covered, before and after a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.small_run import SETTINGS

FILES = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))
ONE_STYLE = next(file for file in FILES if file.stem.endswith("one style"))
SCREEN = {"width": 1920, "height": 1080}
ZOOM = 0.6  # of the view that a template opens with; below 0.571 the classic canvas hides titles and widgets

PICTURES = ("DiffStyler_PreviewStyles", "DiffStyler_SpatialRamp", "DiffStyler_LoraSwitch", "SaveImage", "PreviewImage",
            "ImageCropV2", "DiffStyler_FrameConsistency")  # fmt: skip
PREVIEWS = ("DiffStyler_TrainStyleLoRA", "DiffStyler_DDIMInvert", "DiffStyler_Capture", "DiffStyler_InjectedSampler",
            "DiffStyler_CycleDiffusionInvert", "DiffStyler_StochasticInversion", "DiffStyler_TrainStyleEmbedding",
            "KSampler", "SamplerCustom")  # fmt: skip

SILENT = ("DiffStyler_ExamplePicture", "DiffStyler_ExampleClip", "DiffStyler_ScalePicture")
"""Ours that show no words."""

OPEN = """async ([workflow, name]) => {
    await app.loadGraphData(workflow, true, true, name, {openSource: 'template'});
    return app.canvas.ds.scale;
}"""
# As a run does: six lines of words on the nodes that work for long, four on our others, a result where one is shown,
# a preview where one works.
FILL = """async ([pictures, previews, silent]) => {
    const square = Object.assign(document.createElement('canvas'), {width: 256, height: 256});
    square.getContext('2d').fillRect(0, 0, 256, 256);
    const blob = await new Promise(done => square.toBlob(done));
    const body = new FormData();
    body.append('image', blob, 'layout.png');
    body.append('overwrite', 'true');
    await app.api.fetchApi('/upload/image', {method: 'POST', body});
    const words = lines => [Array.from({length: lines}, (_, i) => `line ${i + 1} of the words on a node`).join('\\n')];
    const images = [{filename: 'layout.png', subfolder: '', type: 'input'}];
    for (const node of app.graph.nodes) {
        const id = String(node.id);
        const output = {};
        if (node.type.startsWith('DiffStyler_') && !silent.includes(node.type))
            output.text = words(previews.includes(node.type) ? 6 : 4);
        if (pictures.includes(node.type)) output.images = images;
        if (previews.includes(node.type)) {
            const detail = {blob, nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id, jobId: 'layout'};
            app.api.dispatchCustomEvent('b_preview_with_metadata', detail);
        }
        if (Object.keys(output).length)
            app.api.dispatchCustomEvent('executed', {node: id, display_node: id, output, prompt_id: 'layout'});
    }
}"""
SHOWN = """types => {
    app.canvas.draw(true, true);
    return app.graph.nodes.filter(node => types.includes(node.type) && !node.flags.collapsed).every(node =>
        LiteGraph.vueNodesMode
            ? document.querySelector(`[data-node-id="${node.id}"] img`)?.naturalWidth
            : node.widgets?.some(widget => widget.name === '$$canvas-image-preview') && node.imgs?.length);
}"""
# The boxes with their titles, in the graph's units: the graph's own, which decides what covers what on the classic
# canvas, and the one on the screen in the new rendering.
BOXES = """() => {
    const {scale, offset} = app.canvas.ds;
    const canvas = app.canvasEl.getBoundingClientRect();
    const drawn = node => {
        const box = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
        return box && [(box.x - canvas.x) / scale - offset[0], (box.y - canvas.y) / scale - offset[1],
                       box.width / scale, box.height / scale];
    };
    return {
        nodes: app.graph.nodes.map(node => [`${node.title} (${node.id})`, drawn(node) ?? [...node.boundingRect]]),
        groups: app.graph.groups.map(group => [group.title, [...group.pos, ...group.size]]),
    };
}"""
SET = """settings => {
    for (const node of app.graph.nodes)
        for (const [name, value] of Object.entries(settings[node.type] ?? {}))
            node.widgets.find(widget => widget.name === name).value = value;
}"""
RUN = """() => new Promise((done, failed) => {
    app.api.addEventListener('execution_success', done, {once: true});
    const fail = ({detail}) => failed(new Error(detail.exception_message));
    app.api.addEventListener('execution_error', fail, {once: true});
    app.queuePrompt(0, 1);
})"""


@pytest.fixture(params=["classic", "vue"])
def screen(request, page):
    """The page at the size of a common screen, in each of the frontend's two renderings."""
    before = page.viewport_size
    page.set_viewport_size(SCREEN)
    setting = "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
    page.evaluate(setting, request.param == "vue")
    page.wait_for_function("on => LiteGraph.vueNodesMode === on", arg=request.param == "vue")
    yield page
    page.evaluate(setting, False)
    page.set_viewport_size(before)


def opened(page, file):
    """Opens a workflow as the template browser does. -> the zoom it is seen at"""
    zoom = page.evaluate(OPEN, [json.loads(file.read_text(encoding="utf-8")), file.stem])
    page.wait_for_timeout(400)
    return zoom


def settled(page):
    """The boxes, once they no longer change."""
    before = None
    while before != (boxes := page.evaluate(BOXES)):
        before = boxes
        page.wait_for_timeout(300)
    return boxes


def overlap(one, other):
    """Whether two boxes (left, top, width, height) share more than their edges."""
    sides = (min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return all(side > 1 for side in sides)


def within(one, other):
    return all(other[i] - 1 <= one[i] and one[i] + one[i + 2] <= other[i] + other[i + 2] + 1 for i in (0, 1))


def faults(boxes):
    """What covers what, and which node is in no group."""
    nodes, groups = boxes["nodes"], boxes["groups"]
    found = [
        f"{name} over {other}"
        for boxed in (nodes, groups)
        for i, (name, box) in enumerate(boxed)
        for other, second in boxed[i + 1 :]
        if overlap(box, second)
    ]
    return found + [f"{name} in no group" for name, box in nodes if not any(within(box, group) for _, group in groups)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_is_covered_before_and_after_a_run(screen, file, tmp_path):
    assert opened(screen, file) >= ZOOM
    before = settled(screen)
    screen.screenshot(path=tmp_path / "before.png")
    assert faults(before) == []
    screen.evaluate(FILL, [PICTURES, PREVIEWS, SILENT])
    screen.wait_for_function(SHOWN, arg=[*PICTURES, *PREVIEWS])
    after = settled(screen)
    screen.screenshot(path=tmp_path / "after.png")
    assert faults(after) == []
    assert after != before, "the words and pictures made no node grow: this test would see nothing"


@pytest.mark.parametrize("screen", ["vue"], indirect=True)
def test_nothing_is_covered_after_a_real_run(screen, tmp_path):
    opened(screen, ONE_STYLE)
    screen.evaluate(SET, SETTINGS)
    screen.evaluate(RUN)
    screen.wait_for_timeout(1000)
    boxes = settled(screen)
    screen.screenshot(path=tmp_path / "run.png")
    assert faults(boxes) == []


def test_the_measure_sees_a_node_over_another_and_one_outside():
    groups = [("Group", [0, 0, 100, 100])]
    assert faults({"nodes": [("A", [10, 10, 40, 40]), ("B", [50, 10, 40, 40])], "groups": groups}) == []
    assert faults({"nodes": [("A", [10, 10, 45, 40]), ("B", [50, 40, 40, 61.5])], "groups": groups}) == [
        "A over B",
        "B in no group",
    ]
