"""Every bundled workflow with a checkpoint of every family, at a small size, and nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path

import av
import folder_paths
import numpy as np
import pytest
import tiny_checkpoints
from PIL import Image

import nodes as host_nodes
from tools.workflow_api import find_nodes, set_input

FOLDER = Path(__file__).parents[1] / "workflows"
DEADIFF = "DiffStyler - DEADiff style of a picture"
EXCLUDED = {
    DEADIFF: "its weights fit SD1.5 alone; tests/host/test_deadiff.py has it with weights of its own",
}
FILES = [file for file in sorted(FOLDER.glob("*.json")) if file.stem not in EXCLUDED]
SMALL = {
    "DiffStyler_ScalePicture": {"size": 64},
    "DiffStyler_ExampleClip": {"frames": 2},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "DiffStyler_TrainStyleLoRA": {"steps": 1, "resolution": 64, "batch_size": 1, "rank": 2},
    "DiffStyler_TrainStyleEmbedding": {"steps": 1, "resolution": 64},
    "DiffStyler_DDIMInvert": {"steps": 3, "reconstruct": False},
    "DiffStyler_CycleDiffusionInvert": {"steps": 3, "skip": 1},
    "DiffStyler_StochasticInversion": {"steps": 3},
    "KSampler": {"steps": 3},
    "KSamplerAdvanced": {"steps": 3},
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


def small(file):
    """The prompt at a small size, whatever checkpoint it names."""
    prompt = json.loads(file.read_text(encoding="utf-8"))
    for target, inputs in [("CheckpointLoaderSimple", {"ckpt_name": "any.safetensors"}), *SMALL.items()]:
        for name, value in inputs.items() if find_nodes(prompt, target) else ():
            set_input(prompt, target, name, value)
    return prompt


def faults(host, prompt, folder):
    """What is wrong with a run: its errors, or pictures and clips that are missing, flat or of another size."""
    host.run(prompt)
    saved = find_nodes(prompt, "SaveImage") + find_nodes(prompt, "SaveVideo")
    if host.errors or not saved:
        return host.errors or ["it saves no picture"]
    found = []
    for node_id in saved:
        (kept,) = host.outputs[node_id]["images"]
        pictures = pictures_of(folder / "output" / kept["subfolder"] / kept["filename"])
        found += [] if len(pictures) == (1 if kept["filename"].endswith(".png") else 2) else [f"{len(pictures)} frames"]
        found += [f"a picture of {picture.shape}" for picture in pictures if picture.shape[:2] != (64, 64)]
        found += ["a flat picture" for picture in pictures if picture.std() <= 1]
    return found


def pictures_of(file):
    """The picture of a file, or a clip's frames."""
    if file.suffix == ".png":
        with Image.open(file) as opened:
            return [np.asarray(opened)]
    with av.open(str(file)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


@pytest.mark.parametrize("family", tiny_checkpoints.FAMILIES)
def test_another_checkpoint_is_all_that_changes(stock, monkeypatch, seed, family):
    """Every workflow, one after another in one host: what they share (content, capture, LoRAs) is made once."""
    checkpoint = tiny_checkpoints.make_checkpoint(family, seed)
    monkeypatch.setattr(host_nodes.CheckpointLoaderSimple, "load_checkpoint", lambda *_, **__: checkpoint)
    host = tiny_checkpoints.Host()
    wrong = {file.stem: faults(host, small(file), stock) for file in FILES}
    assert len(wrong) >= 15
    assert not any(wrong.values()), {name: found for name, found in wrong.items() if found}


def test_a_workflow_that_fails_is_named(stock, monkeypatch, seed):
    """The check itself: layers that this family has not are an error of that workflow."""
    checkpoint = tiny_checkpoints.make_checkpoint("SDXL eps", seed)
    monkeypatch.setattr(host_nodes.CheckpointLoaderSimple, "load_checkpoint", lambda *_, **__: checkpoint)
    prompt = small(FOLDER / "DiffStyler - one style.json")
    host = tiny_checkpoints.Host()
    set_input(prompt, "DiffStyler_Capture", "feature_layers", "11")
    (error,) = faults(host, prompt, stock)
    assert "feature layers 11 do not exist in this UNet" in error


def test_what_is_left_out_is_there():
    assert set(EXCLUDED) <= {file.stem for file in FOLDER.glob("*.json")}
