"""Example Picture: the pack's own pictures, so that the workflows run before anything is uploaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageOps

from . import sockets

PICTURES = Path(__file__).parent.parent / "demo" / "pictures"


def example_names() -> list[str]:
    """The pictures that come with the pack."""
    return sorted(p.name for p in PICTURES.glob("*") if p.suffix in (".jpg", ".png"))


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
            search_aliases=["demo image", "diffstyler"],
            inputs=[io.Combo.Input("picture", options=example_names(), tooltip="Which picture.")],
            outputs=[io.Image.Output("image", tooltip="The picture, RGB.")],
        )

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        if picture not in example_names():
            raise ValueError(f"picture: there is no example {picture!r}; choose one of {', '.join(example_names())}.")
        with Image.open(PICTURES / picture) as file:
            pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"), dtype=np.float32) / 255.0
        return io.NodeOutput(torch.from_numpy(pixels)[None])
