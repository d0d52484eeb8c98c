"""Words on nodes, in both renderings: before, during and after a run, Cancel, an error, the cache and a reload."""

from __future__ import annotations

import re

import pytest

from tests.browser.small_graph import SmallGraph, require_inside

WORDS = {
    "TrainStyleLoRA": ("DiffStyler/style_",),
    "DDIMInvert": ("10 UNet evaluations", "dB PSNR"),
    "Capture": ("self-attention of layers 9-11", "layers auto: feature none", "MB in memory"),
    "InjectedSampler": ("10 steps", "T_a = 500"),
}
FRESH = {"classic": 1, "vue": 2}
"""Seeds of the trainings that no rendering shares with the other: neither finds the other's file."""

CANCEL_AT_ITS_WORDS = """type => {
    const cancel = ({detail}) => {
        if (allNodes().find(node => String(node.id) === detail.node)?.type !== type) return;
        app.api.removeEventListener('diffstyler.words', cancel);
        app.api.interrupt();
    };
    app.api.addEventListener('diffstyler.words', cancel);
}"""
OPEN_RESULT = """async () => {
    const history = Object.values(await (await app.api.fetchApi('/history')).json()).reverse();
    const images = history.flatMap(run => Object.values(run.outputs)).flatMap(output => output.images ?? []);
    const image = images.find(({type}) => type === 'output');
    const answer = await app.api.fetchApi(`/view?${new URLSearchParams(image)}`);
    await app.handleFile(new File([await answer.blob()], 'result.png', {type: 'image/png'}));
}"""


@pytest.fixture
def graph(page, server):
    return SmallGraph(page, server.client)


def require_results(shown):
    for node, words in WORDS.items():
        assert shown[node], f"{node} shows no words"
        assert shown[node]["kind"] == "result", (node, shown[node])
        assert [word for word in words if word not in shown[node]["text"]] == [], (node, shown[node])
    require_inside(shown)


@pytest.mark.every_frontend
def test_words_before_during_and_after_a_run_and_from_the_cache(graph, rendering, page, tmp_path):
    graph.open(TrainStyleLoRA={"seed": FRESH[rendering]}, InjectedSampler={"cfg": 3.0 + FRESH[rendering]})
    assert not graph.shown()["TrainStyleLoRA"]
    assert graph.run() == "success"
    require_results(graph.shown())
    assert not graph.shown()["ExamplePicture"], "it has nothing to say, and does not work any more"
    page.screenshot(path=tmp_path / f"{rendering}.png")
    require_progress(graph.seen(), "TrainStyleLoRA", r"step \d of 3, loss \d\.\d{4}, \d+ s left")
    require_progress(graph.seen(), "InjectedSampler", r"step \d+ of 10, \d+ s left")

    assert graph.run() == "success"
    assert graph.seen() == [], "all was cached"
    require_results(graph.shown())

    graph.set(InjectedSampler={"cfg": 3.5 + FRESH[rendering]})
    assert graph.run() == "success"
    require_progress(graph.seen(), "InjectedSampler", r"step \d+ of 10, \d+ s left")
    require_results(graph.shown())


def require_progress(seen, node, pattern):
    """First that it works, though it showed a result before, then each of its steps."""
    first, *rest = [text for name, text in seen if name == node]
    assert first == "working ..."
    assert rest
    assert [text for text in rest if not re.fullmatch(pattern, text)] == []


@pytest.mark.every_frontend
def test_words_come_back_with_the_workflow_where_it_still_asks_the_same(graph, rendering, page):
    graph.open()
    assert graph.run() == "success"
    workflow = page.evaluate("() => app.graph.serialize()")
    page.evaluate("() => app.graph.clear()")
    graph.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("() => boxOf(nodesOf('DiffStyler_InjectedSampler')[0])")
    page.wait_for_timeout(500)
    require_results(graph.shown())

    for node in workflow["nodes"]:
        if node["type"] == "DiffStyler_DDIMInvert":
            node["widgets_values"][0] = 12
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("() => boxOf(nodesOf('DiffStyler_TrainStyleLoRA')[0])")
    kept = {name for name, box in graph.shown().items() if box}
    assert kept == {"TrainStyleLoRA"}, "the others stand behind an inversion of other steps"


def test_words_come_back_with_a_picture_opened_in_a_fresh_page(graph, page, server):
    graph.open()
    assert graph.run() == "success"
    page.reload()
    page.wait_for_function("!!(window.app?.graph && window.LiteGraph?.registered_node_types?.KSampler)")
    page.wait_for_timeout(2000)
    again = SmallGraph(page, server.client)
    page.evaluate("() => app.graph.clear()")
    page.evaluate(OPEN_RESULT)
    page.wait_for_function("() => nodesOf('DiffStyler_InjectedSampler').some(boxOf)")
    page.wait_for_timeout(500)
    require_results(again.shown())


@pytest.mark.parametrize("node", ["TrainStyleLoRA", "DDIMInvert", "InjectedSampler"])
def test_cancel_says_where_and_what_is_kept(graph, rendering, page, node):
    """40 steps: enough for a busy machine's page to press Cancel in time."""
    fresh = {"TrainStyleLoRA": {"steps": 40, "seed": 10 + FRESH[rendering]}, "InjectedSampler": {"cfg": 7.0}}
    graph.open(**{"DDIMInvert": {"steps": 40}, node: fresh.get(node, {"steps": 60})})
    page.evaluate(CANCEL_AT_ITS_WORDS, f"DiffStyler_{node}")
    graph.run()
    shown = graph.shown()
    assert shown[node]["kind"] == "cancelled", shown[node]
    assert re.fullmatch(r"cancelled at step \d+ of \d+, nothing saved", shown[node]["text"]), shown[node]
    assert [name for name, box in shown.items() if box and box["kind"] == "working"] == []
    require_inside(shown)


def test_an_error_stands_on_its_node_until_the_next_run(graph, rendering, page, tmp_path):
    graph.open(Capture={"self_attention_layers": "0-11"})
    assert graph.run() == "error"
    page.screenshot(path=tmp_path / f"{rendering}.png")
    shown = graph.shown()
    assert shown["Capture"]["kind"] == "error"
    assert "do not exist in this UNet" in shown["Capture"]["text"]
    assert "self-attention layers 0-2" in shown["Capture"]["text"]
    require_inside(shown)
    page.keyboard.press("Escape")
    graph.set(Capture={"self_attention_layers": "auto"})
    assert graph.run() == "success"
    require_results(graph.shown())
