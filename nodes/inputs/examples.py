"""The pictures that come with the pack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageOps
from torch import Tensor

PICTURES = Path(__file__).resolve().parents[2] / "demo" / "pictures"


def example_names() -> list[str]:
    """The pictures that come with the pack."""
    return sorted(path.name for path in PICTURES.glob("*.jpg"))


def picture_input() -> io.Combo.Input:
    """Which of them."""
    return io.Combo.Input("picture", options=example_names(), tooltip="Which picture.")


def example_picture(picture: str) -> Tensor:
    """[H, W, 3] in 0..1. Raises ValueError for a name that is none."""
    if picture not in example_names():
        raise ValueError(f"picture: there is no example {picture!r:.100}; choose one of {', '.join(example_names())}.")
    return pixels_of(PICTURES / picture, "RGB")


def pixels_of(path: Path, mode: str) -> Tensor:
    """A picture file as the host's tensors: [H, W, 3] for mode "RGB", [H, W] for "L", values 0..1."""
    with Image.open(path) as file:
        return torch.from_numpy(np.asarray(ImageOps.exif_transpose(file).convert(mode), dtype=np.float32) / 255.0)
