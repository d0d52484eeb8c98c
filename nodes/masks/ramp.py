"""Spatial Ramp Mask: a transition from one style to another across the picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.masks.mask import PROFILES, Profile, ramp
from .. import sockets
from ..host import text as host_text
from ..host.checks.numbers import require_number
from ..host.checks.pictures import rgb_pictures

LARGEST = 16384
CENTRES, SHARPNESS = (-1.0, 2.0), (0.01, 100.0)
SHOWN = 1024
"""Pixels of the preview's longer side: every second, third, ... one of a larger mask."""


def size_input(side: str) -> io.Int.Input:
    """The widget of width or height."""
    tooltip = f"{side.capitalize()} of the mask in pixels. Used when no image is wired."
    return io.Int.Input(side, default=512, min=1, max=LARGEST, tooltip=tooltip)


def centre_input(axis: str, start: str, end: str) -> io.Float.Input:
    """The widget of one coordinate of the centre."""
    tooltip = f"A point where the mask is 0.5: 0 is the picture's {start} edge, 1 its {end} edge. Acts unless the "
    tooltip += "increase runs straight along the other axis."
    return io.Float.Input(
        f"centre_{axis}", default=0.5, min=CENTRES[0], max=CENTRES[1], step=0.01, round=0.0001, tooltip=tooltip
    )


class SpatialRampMask(io.ComfyNode):
    """Two masks that sum to one, with a soft or sharp line between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_SpatialRamp",
            display_name="Spatial Ramp Mask",
            category=sockets.CATEGORY,
            description="A mask that rises from 0 to 1 across the picture, and its inverse: one style fades into "
            "another.",
            search_aliases=[
                "gradient mask",
                "mask gradient",
                "linear gradient",
                "fade mask",
                "half mask",
                "style transition",
                "blend styles",
                "diffstyler",
            ],
            inputs=[
                size_input("width"),
                size_input("height"),
                io.Combo.Input(
                    "profile",
                    options=list(PROFILES),
                    default="linear",
                    tooltip="linear: even, with ends. logistic: soft ends. step: a hard line.",
                ),
                io.Float.Input(
                    "sharpness",
                    default=1.0,
                    min=SHARPNESS[0],
                    max=SHARPNESS[1],
                    step=0.1,
                    round=0.001,
                    tooltip="Slope of linear and logistic at the centre: 1 spans the picture, 2 its middle half. A "
                    "step is as sharp as can be and does not use it.",
                ),
                io.Float.Input(
                    "angle",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=1.0,
                    round=0.01,
                    tooltip="Direction in which the mask increases, in degrees: 0 to the right, 90 downwards.",
                ),
                centre_input("x", "left", "right"),
                centre_input("y", "upper", "lower"),
                io.Image.Input("image", optional=True, tooltip="Takes width and height from this picture instead."),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="Rises along the angle."),
                io.Mask.Output("inverted", tooltip="1 - mask, for the second of two styles."),
            ],
            has_intermediate_output=True,  # its picture and words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        profile: Profile,
        sharpness: float,
        angle: float,
        centre_x: float,
        centre_y: float,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        if image is not None:
            height, width = rgb_pictures(image, "image").shape[1:3]
        require_number(width, "width", 1, LARGEST)
        require_number(height, "height", 1, LARGEST)
        require_number(sharpness, "sharpness", *SHARPNESS)
        for axis, at in (("centre_x", centre_x), ("centre_y", centre_y)):
            require_number(at, axis, *CENTRES)
        mask = ramp(height, width, profile, angle, (centre_x, centre_y), sharpness)[None]
        covered = sum(row.sum(dtype=torch.float64).item() for row in mask[0]) / mask.numel()
        text = f"{width} x {height}, {100 * covered:.1f} % covered"
        apart = -(-max(width, height) // SHOWN)
        picture = mask[:, ::apart, ::apart, None].expand(-1, -1, -1, 3)
        return host_text.output(mask, 1.0 - mask, text=text, picture=picture)
