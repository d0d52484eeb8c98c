"""Example Clip: a short video of the pack's own, so that the clip's workflow runs before anything is uploaded."""

from __future__ import annotations

from fractions import Fraction

import torch
from comfy_api.latest import InputImpl, Types, io
from torch import Tensor

from .. import sockets
from ..inputs.examples import example_picture, picture_input

WINDOW = 0.875
"""Side of what the camera sees, as a share of the picture's shorter side."""
MOST = 64


def panned(picture: Tensor, frames: int) -> Tensor:
    """[H, W, 3] -> [frames, side, side, 3]: a square window that moves from the upper left corner to the lower right.

    It moves at one speed, rounded to whole pixels: nothing is resampled. side is even, as video codecs want it.
    """
    height, width = picture.shape[:2]
    side = int(WINDOW * min(height, width)) // 2 * 2
    places = [i / (frames - 1) for i in range(frames)]
    corners = [(round(share * (height - side)), round(share * (width - side))) for share in places]
    return torch.stack([picture[top : top + side, left : left + side] for top, left in corners])


class ExampleClip(io.ComfyNode):
    """A video that comes with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ExampleClip",
            display_name="Example Clip",
            category=sockets.CATEGORY,
            description="A short video: the camera moves across a picture that comes with the pack "
            "(licences: demo/pictures/LICENSES.md). Put Load Video in its place to use your own.",
            search_aliases=["demo video", "example video", "sample video", "test video", "diffstyler"],
            inputs=[
                picture_input(),
                io.Int.Input(
                    "frames", default=8, min=2, max=MOST, tooltip="How many frames the move takes; more are slower."
                ),
                io.Float.Input("fps", default=8.0, min=1.0, max=120.0, step=1.0, tooltip="Frames per second."),
            ],
            outputs=[io.Video.Output("video", tooltip="The video, as Load Video gives it; it has no sound.")],
        )

    @classmethod
    def execute(cls, picture: str, frames: int, fps: float) -> io.NodeOutput:
        if not 2 <= frames <= MOST:
            raise ValueError(f"frames must lie in 2..{MOST}, got {frames}.")
        if not 1.0 <= fps <= 120.0:
            raise ValueError(f"fps must lie in 1..120, got {fps}.")
        images = panned(example_picture(picture), frames)
        parts = Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(fps).limit_denominator(1000))
        return io.NodeOutput(InputImpl.VideoFromComponents(parts))
