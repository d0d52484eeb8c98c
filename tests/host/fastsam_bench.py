"""Fixtures (a pytest plugin) that run FastSAM Mask on known pictures, and check the process around every run."""

from __future__ import annotations

import os
import shutil
import warnings
from types import SimpleNamespace

import bright_fastsam
import cv2
import folder_paths
import numpy as np
import PIL.Image
import pytest
import torch

WIDTH, HEIGHT = 192, 128
LEFT, RIGHT = (24, 40, 56, 72), (128, 56, 160, 88)  # x1, y1, x2, y2 of what is bright
PINK, SKY = (1.0, 0.85, 0.85), (0.85, 0.85, 1.0)
DEFAULTS = {
    "fastsam_name": "bright.pt", "mode": "everything", "text": "", "points": "", "boxes": "", "confidence": 0.4,
    "iou": 0.1, "image_size": WIDTH, "best_n": 0, "combine": "merge", "when_none": "empty mask", "clip_folder": "none",
}  # fmt: skip


def picture(*objects):
    """A dark IMAGE with bright rectangles, each (x1, y1, x2, y2) and perhaps its colour."""
    image = torch.full((1, HEIGHT, WIDTH, 3), 0.02)
    for (x1, y1, x2, y2), colour in objects:
        image[0, y1:y2, x1:x2] = torch.tensor(colour)
    return image


SCENE = picture((LEFT, PINK), (RIGHT, SKY))
DARK = picture()


def overlap(mask, *boxes):
    """IoU of a MASK [1, H, W] or [H, W] with a union of rectangles."""
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes:
        expected[y1:y2, x1:x2] = True
    found = mask.squeeze(0) > 0.5
    return ((found & expected).sum() / (found | expected).sum()).item()


def process_state():
    """Everything of the process that ultralytics is known to change."""
    return {
        "environment": dict(os.environ),
        "functions": (torch.save, torch.load, PIL.Image.open, cv2.imread, cv2.imwrite, cv2.imshow),
        "threads": (torch.get_num_threads(), cv2.getNumThreads()),
        "printing": (dict(vars(torch._tensor_str.PRINT_OPTS)), {**np.get_printoptions(), "formatter": None}),
        "filters": list(warnings.filters),
        "safe globals": set(torch.serialization.get_safe_globals()),
    }


@pytest.fixture(scope="session")
def made_weights(pack, tmp_path_factory):
    """bright.pt, never.pt (finds nothing) and always.pt (finds hundreds)."""
    folder = tmp_path_factory.mktemp("made")
    with pack.host_ultralytics.ultralytics_at_work():
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
    bench = SimpleNamespace(folder=folder, text="", node=pack.fastsam.FastSAMMask)

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
