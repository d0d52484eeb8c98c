"""Bundled workflows with another checkpoint in Load Checkpoint, at a small size, and nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import tiny_checkpoints
from PIL import Image

import nodes as host_nodes
from tools.workflow_api import find_nodes, set_input

FOLDER = Path(__file__).parents[1] / "workflows"
DEADIFF = "DiffStyler - DEADiff style of a picture"
EXCLUDED = {DEADIFF: "its weights fit SD1.5 alone; tests/host/test_deadiff.py has it with weights of its own"}
FILES = [file for file in sorted(FOLDER.glob("*.json")) if file.stem not in EXCLUDED]
FARTHEST = "SDXL v, zero-terminal SNR"
"""The family that differs most from the demo's: two encoders, a pooled output, other layers, another schedule."""
PAIRS = [(file, FARTHEST) for file in FILES] + [
    (FOLDER / "DiffStyler - one style.json", family) for family in tiny_checkpoints.FAMILIES if family != FARTHEST
]
"""Every workflow in the farthest family, and the first workflow in every family: all pairs would take minutes."""
SMALL = {
    "DiffStyler_ScalePicture": {"size": 64},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "DiffStyler_TrainStyleLoRA": {"steps": 1, "resolution": 64, "batch_size": 1, "rank": 2},
    "DiffStyler_TrainStyleEmbedding": {"steps": 1, "resolution": 64},
    "DiffStyler_DDIMInvert": {"steps": 5},
    "DiffStyler_CycleDiffusionInvert": {"steps": 5, "skip": 1},
    "DiffStyler_StochasticInversion": {"steps": 5},
    "KSampler": {"steps": 5},
    "KSamplerAdvanced": {"steps": 5},
}


@pytest.fixture
def stock(pack, host_folders, monkeypatch):
    """The host's nodes, with every folder that a workflow writes to below the test's own."""
    tiny_checkpoints.load_stock_nodes()
    for name in ("embeddings", "checkpoints"):
        folder = host_folders / name
        folder.mkdir()
        (folder / "any.safetensors").touch()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(folder)], {".safetensors", ".pt"}))
        folder_paths.filename_list_cache.pop(name, None)
    monkeypatch.setattr(folder_paths, "output_directory", str(host_folders / "output"))
    return host_folders


def swapped(file, monkeypatch, family, seed):
    """The prompt at a small size, with a checkpoint of this family wherever one is loaded."""
    checkpoint = tiny_checkpoints.make_checkpoint(family, seed)
    monkeypatch.setattr(host_nodes.CheckpointLoaderSimple, "load_checkpoint", lambda *_, **__: checkpoint)
    prompt = json.loads(file.read_text(encoding="utf-8"))
    for target, inputs in [("CheckpointLoaderSimple", {"ckpt_name": "any.safetensors"}), *SMALL.items()]:
        for name, value in inputs.items() if find_nodes(prompt, target) else ():
            set_input(prompt, target, name, value)
    return prompt


@pytest.mark.parametrize(("file", "family"), PAIRS, ids=[f"{file.stem}, {family}" for file, family in PAIRS])
def test_another_checkpoint_is_all_that_changes(stock, monkeypatch, seed, file, family):
    prompt = swapped(file, monkeypatch, family, seed)
    run = tiny_checkpoints.Run(prompt)
    assert run.errors == []
    saved = find_nodes(prompt, "SaveImage")
    assert saved
    for node_id in saved:
        (image,) = run.outputs[node_id]["images"]
        with Image.open(stock / "output" / image["subfolder"] / image["filename"]) as opened:
            assert opened.size == (64, 64)
            assert np.asarray(opened).std() > 1, "a flat picture"


def test_what_is_left_out_is_there():
    assert set(EXCLUDED) <= {file.stem for file in FOLDER.glob("*.json")}
