"""The editor's node search: what people type finds the pack's nodes, in rows that are seen without scrolling.

The frontend matches queries with the id, the display name and each alias, but ranks by id and display name alone; what
only an alias matches comes after that, the core's often used nodes first. An alias makes a node findable, no more.
"""

from __future__ import annotations

import pytest

SEEN = 8
"""Rows of the search box that are on the screen at once."""
ROWS = """() => [...document.querySelectorAll('#results-list [role=option]')].map(row => ({
    name: row.querySelector('.truncate').innerText, ours: row.innerText.includes('comfyui-diffstyler')}))"""
FOUND = [
    ("style transfer", "Injected LoRA Sampler", 2),  # the core's Apply Style Model has this alias, and is used more
    ("stylize", "Injected LoRA Sampler", 5),
    ("ip adapter", "DEADiff Encode", 3),
    ("ipadapter", "Joint Text-Image Attention", 1),
    ("style aligned", "Training-free Style", 1),
    ("styleid", "Training-free Style", 6),
    ("textual inversion", "Train Style Embedding", 1),
    ("cyclediffusion", "CycleDiffusion Invert", 1),
    ("describe image", "Describe Style", 3),
    ("attention couple", "Regional Style", 1),
    ("regional", "Regional Style", 1),
    ("regional prompt", "Regional Style", 3),
    ("style", "Regional Style", 6),
    ("style per object", "Styles from Masks", 1),
    ("injection", "Injection Settings", 1),
    ("injection", "Injected LoRA Sampler", 4),
    ("attention injection", "Capture Features/Attention", 2),
    ("pnp", "Injected LoRA Sampler", 4),
    ("plug and play", "Injected LoRA Sampler", 4),
    ("mask", "Mask by FastSAM", 5),
    ("fastsam", "Mask by FastSAM", 1),
    ("segment", "Mask by FastSAM", 6),
    ("segment anything", "Mask by FastSAM", 2),
    ("gradient mask", "Spatial Ramp Mask", 3),
    ("train lora", "Train Style LoRA", 2),
    ("inversion", "DDIM Invert", 4),
    ("lora schedule", "LoRA Switch Schedule", 1),
    ("paste", "Paste Content Back", 1),
    ("restore background", "Paste Content Back", 1),
    ("region preview", "Preview Styles", 2),
    ("compare images", "Compare Result", 2),
    ("psnr", "Compare Result", 3),
    ("fid", "Evaluate Set", 1),
    ("metrics", "Evaluate Set", 2),
    ("pca", "Feature PCA", 1),
    ("cosine similarity", "Feature Similarity", 2),
    ("inversion error", "Reconstruction Report", 2),
    ("example image", "Example Picture", 2),
    ("example video", "Example Clip", 1),
    ("ksampler injection", "Apply Injection", 1),
    ("any sampler", "Apply Styles", 2),
    ("attention across frames", "Share Attention across Frames", 1),
    ("frame consistency", "Frame Consistency", 1),
    ("flicker", "Frame Consistency", 2),
    ("custom sampler", "Injected LoRA Guider", SEEN),
]


@pytest.fixture(scope="module")
def search(frontend):
    """``search("mask")``: the rows that the search box lists for it."""
    frontend.keyboard.press("Escape")  # the template browser, when it opened late
    frontend.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = frontend.locator("input[role=combobox]")
    box.wait_for(timeout=30_000)

    def rows(query):
        box.fill("no node of this name")
        frontend.wait_for_function("() => !document.querySelector('#results-list [role=option]')")
        box.fill(query)
        frontend.wait_for_selector("#results-list [role=option]", timeout=5000)
        return frontend.evaluate(ROWS)

    yield rows
    frontend.keyboard.press("Escape")
    box.wait_for(state="detached")


@pytest.mark.parametrize(("query", "name", "row"), FOUND)
def test_what_people_type_finds_the_node(page, search, query, name, row):
    names = [found["name"] for found in search(query) if found["ours"] or found["name"] != name]
    assert row <= SEEN
    assert name in names[:row], names[:SEEN]


def test_every_node_is_the_first_row_for_its_own_name(page, search, server):
    for node, info in server.client.object_info().items():
        if node.startswith("DiffStyler_"):
            first = search(info["display_name"])[0]
            assert first == {"name": info["display_name"], "ours": True}, node


TITLES = """() => Object.values(LiteGraph.registered_node_types).map(type => [type.type ?? '', type.title])"""


def test_no_node_is_called_as_one_of_the_hosts(page):
    """As the editor shows them: it has titles of its own for the core's nodes."""
    titles = page.evaluate(TITLES)
    ours = {title for kind, title in titles if kind.startswith("DiffStyler_")}
    assert len(ours) > 15
    assert ours & {title for kind, title in titles if not kind.startswith("DiffStyler_")} == set()
