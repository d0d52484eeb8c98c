"""Our nodes in subgraphs, and in subgraphs of those: their words are on them, and nowhere else."""

from __future__ import annotations

import pytest

from tests.browser.small_graph import SmallGraph, require_inside

CONVERT = """types => {
    const chosen = types.map(type => nodesOf(type)[0]);
    const {node: inner} = app.graph.convertToSubgraph(new Set(chosen));
    const {node: outer} = app.graph.convertToSubgraph(new Set([inner]));
    return [String(outer.id), String(inner.id)];
}"""
TWIN = """type => {
    const hidden = nodesOf(type)[0];
    const twin = LiteGraph.createNode('DiffStyler_SpatialRamp');
    twin.id = hidden.id;
    app.rootGraph.add(twin);
    return [twin.id === hidden.id, hidden.graph !== app.rootGraph];
}"""
ENTER = """type => {
    const {graph} = nodesOf(type)[0];
    app.canvas.setGraph(graph);
    app.canvas.ds.scale = 0.75;
    app.canvas.ds.offset = [-Math.min(...graph.nodes.map(node => node.pos[0])) + 150, 100];
}"""
INSIDE = ["DiffStyler_DDIMInvert", "DiffStyler_Capture"]


@pytest.fixture
def graph(page, server):
    yield SmallGraph(page, server.client)
    page.evaluate("() => app.canvas.setGraph(app.rootGraph)")


def test_words_in_a_nested_subgraph_that_is_closed_and_then_opened(graph, rendering, page, tmp_path):
    graph.open(DDIMInvert={"steps": {"classic": 11, "vue": 12}[rendering]})
    page.evaluate(CONVERT, INSIDE)
    same_id, apart = page.evaluate(TWIN, "DiffStyler_DDIMInvert")
    assert same_id, "else the test shows nothing"
    assert apart
    assert graph.run() == "success"
    shown = graph.shown()
    assert shown["SpatialRamp"] is None, "it has the local id of the node in the subgraph"
    assert "UNet evaluations" in shown["DDIMInvert"]["text"]
    assert "self-attention of layers 9-11" in shown["Capture"]["text"]

    page.evaluate(ENTER, "DiffStyler_DDIMInvert")
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / f"{rendering}.png")
    opened = {name: box for name, box in graph.shown().items() if box and "cut" in box}
    assert set(opened) == {"DDIMInvert", "Capture"}
    require_inside(opened)

    assert graph.run() == "success", "from the cache, with the subgraph open"
    assert "UNet evaluations" in graph.shown()["DDIMInvert"]["text"]
    require_inside({name: box for name, box in graph.shown().items() if box and "cut" in box})


def test_an_error_in_a_closed_subgraph_stands_on_its_node(graph, rendering, page):
    graph.open(Capture={"self_attention_layers": "0-11"})
    page.evaluate(CONVERT, INSIDE)
    assert graph.run() == "error"
    assert "do not exist in this UNet" in graph.shown()["Capture"]["text"]
    page.keyboard.press("Escape")
