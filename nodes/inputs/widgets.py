"""Widgets that several nodes have."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.lora.run import STRONGEST
from ..host.sampling.injection import FARTHEST


def strength_input(name: str, tooltip: str, rare: bool = False) -> io.Float.Input:
    """A LoRA's strength. rare: among the advanced settings, and prompts may leave it out."""
    return io.Float.Input(
        name,
        default=1.0,
        min=-STRONGEST,
        max=STRONGEST,
        step=0.05,
        round=0.001,
        tooltip=tooltip,
        optional=rare,
        advanced=rare or None,
    )


def share_input(name: str, default: float, tooltip: str, rare: bool = False) -> io.Float.Input:
    """A share of the run in 0..1, as the host's start_percent and end_percent."""
    return io.Float.Input(
        name, default=default, min=0.0, max=1.0, step=0.01, round=0.001, tooltip=tooltip, advanced=rare or None
    )


def frames_input(work: str) -> io.Int.Input:
    """How many pictures of a batch are worked on at once. work: what is done, for the tooltip."""
    return io.Int.Input(
        "frames_at_once",
        default=0,
        min=0,
        max=4096,
        optional=True,
        advanced=True,
        tooltip=f"Of a batch of contents (frames of a video), how many are {work} at once. 0: all; fewer need less "
        "memory and give the same.",
    )


def mask_edge_inputs(lead: str = "", optional: bool = False) -> list[io.Input]:
    """How the styles' masks grow and soften: mask_grow and mask_feather. lead: begins both tooltips."""
    return [
        io.Int.Input(
            "mask_grow",
            default=0,
            min=-FARTHEST,
            max=FARTHEST,
            optional=optional,
            tooltip=f"{lead}Grows the styles' masks by this many pixels of the picture; negative shrinks them.",
            advanced=True,
        ),
        io.Int.Input(
            "mask_feather",
            default=0,
            min=0,
            max=FARTHEST,
            optional=optional,
            tooltip=f"{lead}Softens the masks' edges over this many pixels to each side.",
            advanced=True,
        ),
    ]
