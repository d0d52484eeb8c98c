"""Widgets that several nodes have."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.injection.attention import BLENDS
from ...diffstyler_core.injection.plan import MODES
from ...diffstyler_core.injection.settings import CUSTOM, PRESETS
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


def preset_input(default: str, tooltip: str, optional: bool = False) -> io.Combo.Input:
    """A choice of settings that go together."""
    return io.Combo.Input("preset", options=[CUSTOM, *PRESETS], default=default, optional=optional, tooltip=tooltip)


def mode_input() -> io.Combo.Input:
    """What comes after the attention's window."""
    return io.Combo.Input(
        "attention_mode",
        options=list(MODES),
        default="adaptive",
        tooltip="adaptive: after the attention's window the style's own attention comes in gradually (2026). "
        "fixed: the content's attention stops there (2024).",
    )


def blend_input() -> io.Combo.Input:
    """What adaptive attention blends."""
    return io.Combo.Input(
        "blend",
        options=list(BLENDS),
        default="qk",
        tooltip="What adaptive attention blends: q and k before the softmax, or the two attention maps.",
        advanced=True,
    )
