"""UI-format workflows to API format, on hand-made graphs."""

import pytest

from tools.workflow_api import find_nodes, set_input, to_api
from tools.workflow_widgets import WorkflowError

INFO = {
    "Load": {
        "name": "Load",
        "display_name": "Load It",
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
    },
    "Filter": {
        "name": "Filter",
        "input": {"required": {"pixels": ["IMAGE"], "amount": ["FLOAT", {"default": 0.5}]}},
    },
    "Sample": {
        "name": "Sample",
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "mode": ["COMBO", {"options": ["fast", "exact"], "default": "exact", "advanced": True}],
                "socket": ["INT", {"forceInput": True}],
            },
            "optional": {"image": ["IMAGE"], "note": ["STRING", {"multiline": True}]},
            "hidden": {"unique_id": "UNIQUE_ID"},
        },
        "input_order": {"required": ["model", "seed", "steps", "mode", "socket"], "optional": ["image", "note"]},
    },
    "Seeded": {"name": "Seeded", "input": {"required": {"noise_seed": ["INT"], "on": ["BOOLEAN", {"default": True}]}}},
    "Pick": {
        "name": "Pick",
        "input": {
            "required": {
                "how": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "plain", "inputs": {"required": {}}},
                            {"key": "wide", "inputs": {"required": {"by": ["INT", {"default": 2}]}}},
                        ]
                    },
                ],
                "after": ["INT", {"default": 9}],
            }
        },
    },
    "Crop": {
        "name": "Crop",
        "input": {"required": {"image": ["IMAGE"], "region": ["BOUNDING_BOX", {}], "after": ["INT"]}},
    },
    "Drawn": {"name": "Drawn", "input": {"required": {"curve": ["CURVE", {}]}}},
}


def node(number, kind, *, values=None, inputs=(), outputs=(), mode=0, **other):
    found = {
        "id": number,
        "type": kind,
        "mode": mode,
        "inputs": [
            {
                "name": name,
                "type": socket,
                "link": link,
                **({"widget": {"name": name}} if name == socket.lower() else {}),
            }
            for name, socket, link in inputs
        ],
        "outputs": [{"name": kind_out, "type": kind_out} for kind_out in outputs],
        **other,
    }
    return found if values is None else {**found, "widgets_values": values}


def convert(*nodes, links=()):
    return to_api({"version": 0.4, "nodes": list(nodes), "links": list(links)}, INFO)


def inputs_of(kind, values):
    return convert(node(1, kind, values=values))["1"]["inputs"]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("Load", ["b.png", "image"], {"image": "b.png"}),  # the value of the upload button
        ("Sample", [7, "fixed", 30, "fast", "hi"], {"seed": 7, "steps": 30, "mode": "fast", "note": "hi"}),
        (
            "Sample",
            [7, "randomize"],
            {"seed": 7, "steps": 20, "mode": "exact", "note": ""},
        ),  # saved by an older version
        ("Seeded", [3, "increment", False], {"noise_seed": 3, "on": False}),  # by its name alone
        ("Filter", None, {"amount": 0.5}),
        ("Filter", {"amount": 0.25}, {"amount": 0.25}),  # stored by name
        ("Filter", [[1, 2]], {"amount": {"__value__": [1, 2]}}),  # a list would be a link
        (
            "Crop",
            [{"x": 1, "y": 2, "width": 3, "height": 4}, 1, 2, 3, 4, 5],
            {"region": {"x": 1, "y": 2, "width": 3, "height": 4}, "after": 5},
        ),  # the classic canvas's four numbers
        ("Crop", [], {"region": {"x": 0, "y": 0, "width": 512, "height": 512}, "after": 0}),
        ("Pick", ["plain", 4], {"how": "plain", "after": 4}),
        ("Pick", ["wide", 5, 4], {"how": "wide", "how.by": 5, "after": 4}),
    ],
)
def test_stored_values_go_to_their_widgets(kind, values, expected):
    assert inputs_of(kind, values) == expected


def test_titles_ids_and_classes():
    api = convert(node(4, "Load", values=["a.png"], title="Content"), node(5, "Load", values=["a.png"]))
    assert {key: (entry["class_type"], entry["_meta"]) for key, entry in api.items()} == {
        "4": ("Load", {"title": "Content"}),
        "5": ("Load", {"title": "Load It"}),
    }


@pytest.mark.parametrize("as_dict", [False, True])
def test_links_in_both_spellings(as_dict):
    link = [9, 1, 0, 2, 0, "IMAGE"]
    if as_dict:
        link = dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
    api = convert(
        node(1, "Load", values=["a.png"], outputs=["IMAGE"]),
        node(2, "Filter", values=[0.1], inputs=[("pixels", "IMAGE", 9), ("amount", "FLOAT", None)]),
        links=[link],
    )
    assert api["2"]["inputs"] == {"pixels": ["1", 0], "amount": 0.1}


def test_a_linked_widget_gives_way_to_the_link():
    api = convert(
        node(1, "Load", values=["a.png"], outputs=["IMAGE", "FLOAT"]),
        node(2, "Filter", values=[0.1], inputs=[("pixels", "IMAGE", None), ("amount", "FLOAT", 9)]),
        links=[[9, 1, 1, 2, 1, "FLOAT"]],
    )
    assert api["2"]["inputs"] == {"amount": ["1", 1]}


def chain(between):
    """Load -> between -> Filter -> Filter."""
    return convert(
        node(1, "Load", values=["a.png"], outputs=["IMAGE"]),
        between,
        node(3, "Filter", values=[0.1], inputs=[("pixels", "IMAGE", 11)], outputs=["IMAGE"]),
        links=[[10, 1, 0, 2, 0, "IMAGE"], [11, 2, 0, 3, 0, "IMAGE"]],
    )


@pytest.mark.parametrize(
    ("between", "source"),
    [
        (node(2, "Reroute", inputs=[("", "*", 10)], outputs=["IMAGE"]), ["1", 0]),
        (node(2, "Filter", mode=4, inputs=[("pixels", "IMAGE", 10)], outputs=["IMAGE"]), ["1", 0]),
        (node(2, "Unknown", mode=4, inputs=[("pixels", "IMAGE", 10)], outputs=["IMAGE"]), ["1", 0]),
        (node(2, "Filter", mode=4, inputs=[("m", "MODEL", None), ("p", "IMAGE", 10)], outputs=["IMAGE"]), ["1", 0]),
        (node(2, "Filter", mode=4, inputs=[("latent", "LATENT", 10)], outputs=["IMAGE"]), None),
        (node(2, "Filter", mode=2, inputs=[("pixels", "IMAGE", 10)], outputs=["IMAGE"]), None),
    ],
    ids=["reroute", "bypassed", "bypassed and not installed", "bypassed by type", "bypassed with none to fit", "muted"],
)
def test_links_go_through_what_does_not_run(between, source):
    api = chain(between)
    assert "2" not in api
    assert api["3"]["inputs"].get("pixels") == source


def test_a_primitive_puts_its_value_into_the_widget():
    api = convert(
        node(1, "PrimitiveNode", values=[0.75, "fixed"], outputs=["FLOAT"]),
        node(2, "Filter", values=[0.1], inputs=[("amount", "FLOAT", 9)]),
        node(3, "Note", values=["read me"]),
        node(4, "MarkdownNote", values=["# me too"]),
        links=[[9, 1, 0, 2, 0, "FLOAT"]],
    )
    assert list(api) == ["2"]
    assert api["2"]["inputs"] == {"amount": 0.75}


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        ({"1": {"class_type": "Load", "inputs": {}}}, "API format already"),
        ({"nodes": [node(1, "Elsewhere")]}, "'Elsewhere', which this server does not have"),
        ({"nodes": [node(1, "Drawn", values=[[]])]}, "CURVE"),
        ({"nodes": [node(1, "u-u-i-d")], "definitions": {"subgraphs": [{"id": "u-u-i-d"}]}}, "subgraph"),
        ({"nodes": [node(1, "Filter", inputs=[("pixels", "IMAGE", 3)])], "links": []}, "unknown link 3"),
        (
            {"nodes": [node(1, "Filter", inputs=[("pixels", "IMAGE", 3)])], "links": [[3, 8, 0, 1, 0, "IMAGE"]]},
            "node 8, which the workflow does not have",
        ),
        (
            {
                "nodes": [
                    node(1, "Filter", inputs=[("pixels", "IMAGE", 3)]),
                    node(2, "Reroute", inputs=[("", "*", 4)], outputs=["IMAGE"]),
                ],
                "links": [[3, 2, 0, 1, 0, "IMAGE"], [4, 2, 0, 2, 0, "IMAGE"]],
            },
            "circle",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(workflow, words):
    with pytest.raises(WorkflowError, match=words):
        to_api(workflow, INFO)


@pytest.fixture
def api():
    return chain(node(2, "Reroute", inputs=[("", "*", 10)], outputs=["IMAGE"], title="R"))


def test_inputs_are_set_by_title_class_or_id(api):
    for target, value in (("Load It", "b.png"), ("Load", "c.png"), ("1", "d.png")):
        set_input(api, target, "image", value)
        assert api["1"]["inputs"]["image"] == value
    assert find_nodes(api, "Filter") == ["3"]


@pytest.mark.parametrize(
    ("target", "name", "words"),
    [
        ("Style", "image", "there are: Filter, Load It"),
        ("Load", "picture", "it has: image"),
        ("Filter", "pixels", "comes from node 1"),
    ],
)
def test_a_setting_that_finds_nothing_is_refused(api, target, name, words):
    with pytest.raises(WorkflowError, match=words):
        set_input(api, target, name, "x")
