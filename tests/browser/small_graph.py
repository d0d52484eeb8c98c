"""The one-style workflow in the editor, at a size that takes seconds: opened, run, and what its nodes show."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.server.small_run import SETTINGS

FILE = Path(__file__).parents[2] / "workflows" / "DiffStyler - one style.json"

OPEN = """async ([workflow, settings]) => {
    await app.loadGraphData(workflow, true, true, app.extensionManager.workflow.activeWorkflow);  // not in a new tab
    for (const [type, values] of Object.entries(settings)) setValues(type, values);
    app.canvas.ds.scale = 0.75;
    app.canvas.ds.offset = [80, 40];
}"""
HELPERS = """() => {
    window.allNodes = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()].flatMap(graph => graph.nodes);
    window.nodesOf = type => allNodes().filter(node => node.type === type);
    window.setValues = (type, values) => {
        for (const node of nodesOf(type))
            for (const [name, value] of Object.entries(values))
                node.widgets.find(widget => widget.name === name).value = value;
    };
    window.boxOf = node => node.widgets?.find(widget => widget.name === 'diffstyler_words');
    window.frameOf = (node, box) => {
        const drawn = box.element.getBoundingClientRect();
        const frame = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
        const cut = Math.max(box.element.scrollHeight - box.element.clientHeight, 0);
        const [own, outer] = LiteGraph.vueNodesMode
            ? [drawn.bottom, frame.bottom] : [box.y + box.computedHeight, node.size[1]];
        return {visible: drawn.height > 0, lines: Math.round(box.element.clientHeight / 17), cut, below: own - outer};
    };
}"""
DRAWN = """async () => {  // a busy machine draws a frame a second
    for (let i = 0; i < 3; i++) {
        app.canvas.draw(true, true);
        await new Promise(requestAnimationFrame);
    }
    await new Promise(resolve => setTimeout(resolve, 200));
}"""
SHOWN = """() => Object.fromEntries(allNodes().filter(node => node.type.startsWith('DiffStyler_')).map(node => {
    const box = boxOf(node);
    return [node.type, box && {text: box.element.textContent, kind: box.element.dataset.kind,
                               ...(node.graph === app.canvas.graph ? frameOf(node, box) : {})}];
}))"""
WATCH = """() => {
    window.seen = [];
    const look = id => {
        const node = app.rootGraph.getNodeById(id);
        if (node?.type.startsWith('DiffStyler_')) seen.push([node.type, boxOf(node)?.element.textContent]);
    };
    window.watching ??= ['executing', 'diffstyler.words'].map(type =>
        app.api.addEventListener(type, ({detail}) => detail && look(detail.node ?? detail)));
}"""


class SmallGraph:
    """The workflow in a page. ``settings``: node class -> widget -> value, on top of those that make it small."""

    def __init__(self, page, client):
        self.page, self._client = page, client
        page.evaluate(HELPERS)

    def open(self, workflow=None, **settings):
        workflow = json.loads(FILE.read_text(encoding="utf-8")) if workflow is None else workflow
        self.page.evaluate(OPEN, [workflow, SETTINGS])
        self.set(**settings)

    def set(self, **settings):
        for name, values in settings.items():
            self.page.evaluate("([type, values]) => setValues(type, values)", [f"DiffStyler_{name}", values])

    def run(self):
        """Runs it to its end; the run's status. ``seen`` is then what each node showed in turn."""
        before = set(self._client.history())
        self.page.evaluate(WATCH)
        self.page.evaluate("async () => { await app.queuePrompt(0, 1); }")
        deadline = time.monotonic() + 300
        while not (ended := set(self._client.history()) - before):
            assert time.monotonic() < deadline, "the run did not end"
            self.page.wait_for_timeout(200)
        self.page.wait_for_timeout(700)
        return self._client.history()[ended.pop()]["status"]["status_str"]

    def shown(self):
        """Node class without its prefix -> its words, and where they are drawn; None where there are none."""
        self.page.evaluate(DRAWN)
        return {name.removeprefix("DiffStyler_"): box for name, box in self.page.evaluate(SHOWN).items()}

    def seen(self):
        """(node class, words) in the order in which they were shown."""
        return [(kind.removeprefix("DiffStyler_"), text) for kind, text in self.page.evaluate("() => seen")]


def require_inside(shown):
    """All words on the screen are whole, and inside the frame of their node."""
    for name, box in shown.items():
        if box and "cut" in box:
            assert box["visible"], name
            assert box["cut"] <= 1, (name, box)
            assert box["below"] <= 1, (name, box)
            assert box["lines"] >= 1 + box["text"].count("\n"), (name, box)
