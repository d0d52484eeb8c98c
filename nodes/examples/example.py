"""Example Picture: the pack's own pictures, so that the workflows run before anything is uploaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageOps
from torch import Tensor

from .. import sockets

PICTURES = Path(__file__).resolve().parents[2] / "demo" / "pictures"


def example_names() -> list[str]:
    """The pictures that come with the pack."""
    return sorted(path.name for path in PICTURES.glob("*.jpg"))


def pixels_of(path: Path, mode: str) -> Tensor:
    """A picture file as the host's tensors: [H, W, 3] for mode "RGB", [H, W] for "L", values 0..1."""
    with Image.open(path) as file:
        return torch.from_numpy(np.asarray(ImageOps.exif_transpose(file).convert(mode), dtype=np.float32) / 255.0)


def subject_of(picture: str, image: Tensor) -> Tensor:
    """The mask [H, W] of a picture's subject; everything where the pack has none for it."""
    path = PICTURES / picture.replace("content_", "mask_").replace(".jpg", ".png")
    return pixels_of(path, "L") if path.is_file() else torch.ones(image.shape[:2])


class ExamplePicture(io.ComfyNode):
    """A picture that comes with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ExamplePicture",
            display_name="Example Picture",
            category=sockets.CATEGORY,
            description="A photograph or style picture that comes with the pack (licences: demo/pictures/LICENSES.md). "
            "Put Load Image in its place to use your own.",
            search_aliases=["demo image", "example image", "sample image", "test image", "diffstyler"],
            inputs=[io.Combo.Input("picture", options=example_names(), tooltip="Which picture.")],
            outputs=[
                io.Image.Output("image", tooltip="The picture, RGB."),
                io.Mask.Output("mask", tooltip="Its subject, for the pictures that have a mask; else everything."),
            ],
        )

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        if picture not in example_names():
            raise ValueError(
                f"picture: there is no example {picture!r:.100}; choose one of {', '.join(example_names())}."
            )
        image = pixels_of(PICTURES / picture, "RGB")
        return io.NodeOutput(image[None], subject_of(picture, image)[None])
