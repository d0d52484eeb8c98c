"""Node ids, inputs and outputs, as the host's object_info gives them, are those of snapshot.json.

Saved workflows and API prompts name them. Renew the snapshot only on purpose:

    DIFFSTYLER_RENEW_SNAPSHOT=1 python3 tools/dev.py test host -- -k snapshot
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
from pathlib import Path

import folder_paths
import pytest
from comfy_api.latest import io
from comfy_api.latest._io import create_input_dict_v1
from versions import needs_host

FILE = Path(__file__).parent / "snapshot.json"
RENEW = "DIFFSTYLER_RENEW_SNAPSHOT"
BROKEN = f"""the nodes differ from {FILE.name}. Workflows and API prompts that people have saved must go on working:
rename and remove nothing, keep the order of inputs and outputs, append new ones at the end, as optional inputs or with
a default, and leave every value allowed that was. If the change is meant, {RENEW}=1 renews the snapshot."""


@pytest.fixture
def empty_folders(tmp_path, monkeypatch):
    """No model is installed: lists of files hold only what the pack itself puts there."""
    for name, (_, kinds) in folder_paths.folder_names_and_paths.items():
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / "nothing")], kinds))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})


def inputs_of(groups, within=""):
    """A line for each input: required ones first, and after a choice what belongs to each of its options."""
    lines = []
    for group in ("required", "optional"):
        for name, (kind, *settings) in groups.get(group, {}).items():
            values = settings[0] if settings else {}
            options = kind if isinstance(kind, list) else values.get("options", [])
            shown = {key: values[key] for key in ("default", "min", "max") if values.get(key) is not None}
            shown |= {"options": [key_of(option) for option in options]} if options else {}
            words = [f"{key} {value!r}" for key, value in shown.items()]
            lines.append(", ".join([f"{within}{name}: {'COMBO' if isinstance(kind, list) else kind}", group, *words]))
            for option in options:
                if isinstance(option, dict):
                    lines += inputs_of(option["inputs"], f"{within}{name}={option['key']}.")
    return lines


def key_of(option):
    """An option's name: those of a dynamic choice bring inputs of their own."""
    return option["key"] if isinstance(option, dict) else option


def outputs_of(info):
    outputs = zip(info["output_name"], info["output"], info["output_is_list"], strict=True)
    return [f"{name}: {kind}{', a list' if is_list else ''}" for name, kind, is_list in outputs]


def as_seen_by_the_host(pack):
    nodes = asyncio.run(pack.extension.DiffStylerExtension().get_node_list())
    infos = sorted((node.GET_NODE_INFO_V1() for node in nodes), key=lambda info: info["name"])
    return {info["name"]: {"inputs": inputs_of(info["input"]), "outputs": outputs_of(info)} for info in infos}


@needs_host("0.30.0", "io.BoundingBoxes, which the kept inputs name")
def test_saved_workflows_and_prompts_stay_valid(pack, empty_folders):
    now = json.dumps(as_seen_by_the_host(pack), indent=1) + "\n"
    if os.environ.get(RENEW):
        FILE.write_text(now, encoding="utf-8")
        pytest.skip(f"{FILE.name} was renewed: look at what changed before you commit it")
    kept = FILE.read_text(encoding="utf-8")
    changes = "\n".join(difflib.unified_diff(kept.splitlines(), now.splitlines(), FILE.name, "now", lineterm="", n=1))
    if now != kept:
        pytest.fail(f"{BROKEN}\n\n{changes}", pytrace=False)


def test_the_inputs_that_an_option_brings_are_seen():
    options = [io.DynamicCombo.Option("none", []), io.DynamicCombo.Option("own", [io.Int.Input("end", default=3)])]
    choice = io.DynamicCombo.Input("window", options=options)
    assert inputs_of(create_input_dict_v1([choice, io.Mask.Input("mask", optional=True)])) == [
        "window: COMFY_DYNAMICCOMBO_V3, required, options ['none', 'own']",
        "window=own.end: INT, required, default 3",
        "mask: MASK, optional",
    ]
