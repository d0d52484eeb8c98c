"""On a ComfyUI that is too old the pack says so in one sentence, and leaves all else as it is."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("version")

SENTENCE = (
    "DiffStyler needs ComfyUI 0.24.0 or newer: this one has no io.Schema(has_intermediate_output). "
    "Update ComfyUI and start it again."
)
PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}},
}
SCRIPTS = """async ours => {
    const names = (await (await app.api.fetchApi('/extensions')).json()).filter(path => path.includes(ours));
    return names.length;
}"""
OPEN_AND_RUN = """async () => {
    app.graph.clear();
    const [picture, saved] = ['EmptyImage', 'SaveImage'].map(type => LiteGraph.createNode(type));
    for (const node of [picture, saved]) app.graph.add(node);
    picture.widgets.find(widget => widget.name === 'color').value = 65280;
    picture.connect(0, saved, 0);
    await app.loadGraphData(app.graph.serialize());
    const ended = new Promise(done => app.api.addEventListener('execution_success', done, {once: true}));
    await app.queuePrompt(0, 1);
    await ended;
}"""


def test_the_log_says_it_in_one_sentence(server):
    log = server.log_text()
    assert [line for line in log.splitlines() if "DiffStyler" in line and line.endswith(SENTENCE)]
    assert log.count("DiffStyler") == 1
    assert "Traceback" not in log


def test_the_host_has_its_own_nodes_and_none_of_ours(server):
    known = server.client.object_info()
    assert {"KSampler", "CheckpointLoaderSimple", "SaveImage"} <= set(known)
    assert [name for name in known if name.startswith("DiffStyler_")] == []


def test_the_host_runs_a_prompt(server):
    assert server.client.queue(PROMPT).outputs


def test_the_page_opens_and_runs_a_graph_without_a_complaint(page):
    assert page.evaluate(SCRIPTS, "comfyui-diffstyler"), "the host serves the scripts all the same"
    page.evaluate(OPEN_AND_RUN)
    page.wait_for_timeout(500)
