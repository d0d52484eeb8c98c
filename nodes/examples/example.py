"""Example Picture: the pack's own pictures, so that the workflows run before anything is uploaded."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from .. import sockets
from ..inputs.examples import PICTURES, example_picture, picture_input, pixels_of


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
            inputs=[picture_input()],
            outputs=[
                io.Image.Output("image", tooltip="The picture, RGB."),
                io.Mask.Output("mask", tooltip="Its subject, for the pictures that have a mask; else everything."),
            ],
        )

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        image = example_picture(picture)
        return io.NodeOutput(image[None], subject_of(picture, image)[None])
