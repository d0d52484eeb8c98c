"""Known pictures for Mask by FastSAM, small settings, and the state of the process that a run must leave alone."""

from __future__ import annotations

import os
import warnings

import cv2
import numpy as np
import PIL.Image
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
