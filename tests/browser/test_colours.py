"""Our own types have colours of their own in both renderings, and no other type's colour is touched."""

from __future__ import annotations

import itertools

import pytest

OURS = ("TRAJECTORY", "FEATURES", "INJECTION", "LORA_SCHEDULE", "STYLES")
DICTIONARIES = """() => [app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors]"""
IN_PALETTE = """async () => {
    const palettes = {};
    for (const id of ['dark', 'light', 'arc']) {
        await app.extensionManager.setting.set('Comfy.ColorPalette', id);
        await new Promise(resolve => setTimeout(resolve, 600));
        palettes[id] = [app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors].map(d => ({...d}));
    }
    await app.extensionManager.setting.set('Comfy.ColorPalette', 'dark');
    return palettes;
}"""
DRAWN = """async type => {
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    await new Promise(resolve => setTimeout(resolve, 800));
    const frame = document.querySelector(`[data-node-id="${node.id}"]`);
    const dots = [...frame.querySelectorAll('[data-testid="slot-dot"]')];
    return dots.flatMap(dot => [dot, ...dot.querySelectorAll('path, circle')])
        .map(part => [getComputedStyle(part).backgroundColor, getComputedStyle(part).fill]).flat();
}"""


def channels(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def luminance(colour):
    """Relative luminance, WCAG 2."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.fixture(scope="module")
def palettes(frontend):
    return frontend.evaluate(IN_PALETTE)


@pytest.mark.parametrize("palette", ["dark", "light", "arc"])
def test_slots_and_links_are_coloured_in_every_palette(palettes, palette):
    slots, links = palettes[palette]
    for name in OURS:
        assert slots[f"DIFFSTYLER_{name}"]
        assert slots[f"DIFFSTYLER_{name}"] == links[f"DIFFSTYLER_{name}"]
    assert not slots.get("LORA_MODEL"), "the host's type: its colour is the host's"
    assert slots["MODEL"] == links["MODEL"] != ""


def test_they_are_readable_on_a_node_and_unlike_each_other(palettes):
    slots, _ = palettes["dark"]
    colours = [slots[f"DIFFSTYLER_{name}"] for name in OURS]
    for colour in colours:
        assert (luminance(colour) + 0.05) / (luminance("#353535") + 0.05) > 3.0, colour
    others = [slots[name] for name in ("MODEL", "LATENT", "CONDITIONING", "IMAGE", "MASK", "VAE", "CLIP")]
    pairs = [*itertools.combinations(colours, 2), *itertools.product(colours, others)]
    close = [pair for pair in pairs if sum(abs(a - b) for a, b in zip(*map(channels, pair), strict=True)) < 60]
    assert close == []


def test_the_new_rendering_draws_them(page):
    page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    page.wait_for_function("() => LiteGraph.vueNodesMode")
    slots, _ = page.evaluate(DICTIONARIES)
    expected = {"DDIMInvert": ["TRAJECTORY"], "Capture": ["TRAJECTORY", "FEATURES", "LORA_SCHEDULE"],
                "InjectedSampler": ["FEATURES", "INJECTION", "STYLES", "LORA_SCHEDULE"]}  # fmt: skip
    for node, types in expected.items():
        drawn = page.evaluate(DRAWN, f"DiffStyler_{node}")
        for name in types:
            red, green, blue = channels(slots[f"DIFFSTYLER_{name}"])
            assert f"rgb({red}, {green}, {blue})" in drawn, (node, name)
    page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
