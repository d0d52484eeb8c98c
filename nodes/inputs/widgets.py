"""Widgets that several nodes have."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.lora.run import STRONGEST


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
