"""A host that is too old is told so in one sentence, through the pack's own entry point."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import comfy_api.latest
import pytest


def enter(pack):
    package = pack.host.requirement.__name__.removesuffix(".nodes.host.requirement")
    return asyncio.run(sys.modules[package].comfy_entrypoint())


class OlderSchema:
    def __init__(self, node_id, inputs=None): ...


@pytest.mark.parametrize("lacking", ["io.BoundingBox", "io.Schema(has_intermediate_output)"])
def test_an_older_host_is_named_with_what_it_lacks_and_nothing_else(pack, monkeypatch, lacking):
    io = comfy_api.latest.io
    older = {"BoundingBox": io.BoundingBox, "Schema": io.Schema}
    if "Schema" in lacking:
        older["Schema"] = OlderSchema
    else:
        del older[lacking.removeprefix("io.")]
    monkeypatch.setattr(comfy_api.latest, "io", SimpleNamespace(**older))
    with pytest.raises(ImportError) as refusal:
        enter(pack)
    assert str(refusal.value) == (
        f"DiffStyler needs ComfyUI 0.24.0 or newer: this one has no {lacking}. Update ComfyUI and start it again."
    )


def test_this_host_gets_the_nodes(pack):
    assert asyncio.run(enter(pack).get_node_list())
