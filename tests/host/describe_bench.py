"""Describe Style with short defaults, and pictures as PIL has them."""

from __future__ import annotations

import torch
from PIL import Image

LENGTH = 8
LIKELIEST = {"sampling": "likeliest"}
RANDOM = {"sampling": "random", "temperature": 1.5, "top_p": 0.8, "seed": 7}
DEFAULTS = {
    "question": "style of the image", "leave_out": "", "max_length": LENGTH, "sampling": LIKELIEST,
    "model_folder": "tiny", "precision": "fp32",
}  # fmt: skip


def pil(image):
    return Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy())
