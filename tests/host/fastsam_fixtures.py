"""Fixtures (a pytest plugin) that run Mask by FastSAM, and check the process around every test."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import bright_fastsam
import cv2
import folder_paths
import pytest
from fastsam_bench import DEFAULTS, SCENE, process_state


@pytest.fixture(scope="session")
def made_weights(pack, tmp_path_factory):
    """bright.pt, never.pt (finds nothing) and always.pt (finds hundreds)."""
    folder = tmp_path_factory.mktemp("made")
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        bright_fastsam.save(bright_fastsam.make_network(), folder / "bright.pt")
        bright_fastsam.save(bright_fastsam.make_network(never=True), folder / "never.pt")
        bright_fastsam.save(bright_fastsam.make_network(always=True), folder / "always.pt")
    return folder


@pytest.fixture
def fastsam(pack, made_weights, tmp_path, monkeypatch):
    """``fastsam.run(mode=..., ...)`` -> (mask, masks, preview); ``fastsam.text`` is what the node said.

    ``fastsam.folder`` is models/fastsam. After the test the process is as it was before.
    """
    folder = tmp_path / "fastsam"
    shutil.copytree(made_weights, folder)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "fastsam", ([str(folder)], set()))
    folder_paths.filename_list_cache.pop("fastsam", None)
    bench = SimpleNamespace(folder=folder, text="", node=pack.masks.fastsam.FastSAMMask)

    def run(image=SCENE, **changes):
        output = bench.node.execute(image, **{**DEFAULTS, **changes})
        shown = output.ui if isinstance(output.ui, dict) else output.ui.as_dict()
        bench.text = shown["text"][0]
        return output.result

    bench.run = run
    cv2.setNumThreads(3)
    before = process_state()
    yield bench
    after = process_state()
    environment = [state["environment"] for state in (before, after)]
    for values in environment:
        values.pop("PYTEST_CURRENT_TEST", None)
    assert before == after
