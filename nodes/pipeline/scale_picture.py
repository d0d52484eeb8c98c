"""Scale Picture to Model: a picture at the size that a model was trained on: one graph fits every checkpoint."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from .. import sockets
from ..host.checks.pictures import rgb_pictures
from ..host.scaling import LARGEST, SHAPES, STEP, Shape, scaled, size_for
from ..host.types import ModelPatcher


class ScalePicture(io.ComfyNode):
    """A picture at a model's own size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ScalePicture",
            display_name="Scale Picture to Model",
            category=sockets.CATEGORY,
            description="Scales a picture to the number of pixels that the model was trained on: 512 x 512 for SD1, "
            "1024 x 1024 for SDXL. Choose another checkpoint, and the graph goes along.",
            search_aliases=[
                "resize image",
                "scale image",
                "image size",
                "resolution",
                "native resolution",
                "sdxl resolution",
                "upscale image",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint whose size is wanted."),
                io.Image.Input("image", tooltip="The picture; of a batch, every one is scaled alike."),
                io.Combo.Input(
                    "shape",
                    options=list(SHAPES),
                    default=SHAPES[0],
                    tooltip="square: the middle of the picture. keep aspect: the picture's own shape, with as many "
                    f"pixels. Sides are multiples of {STEP}; what stands over is cropped at the edges.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=LARGEST,
                    step=STEP,
                    tooltip="Side in pixels of a square with as many pixels. 0: the model's own.",
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="The picture at that size; encode it with the checkpoint's VAE."),
                io.Int.Output("width", tooltip="Its width in pixels."),
                io.Int.Output("height", tooltip="Its height in pixels."),
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, image: Tensor, shape: Shape, size: int) -> io.NodeOutput:
        pictures = rgb_pictures(image, "image")
        width, height = size_for(model, pictures, shape, size)
        return io.NodeOutput(scaled(pictures, width, height), width, height)
