"""Injection settings that go together, as shares of the S steps, so that they mean the same for every S."""

from __future__ import annotations

from typing import NamedTuple

from .attention import Blend
from .plan import Mode

CUSTOM = "custom"


class Preset(NamedTuple):
    """feature, attention: which share of the first steps overrides completely, in [0, 1]."""

    feature: float
    attention: float
    mode: Mode
    blend: Blend


class Windows(NamedTuple):
    """The four settings of an injection, in steps of a run."""

    feature_steps: int
    attention_steps: int
    attention_mode: Mode
    blend: Blend

    def __str__(self) -> str:
        return (
            f"feature_steps {self.feature_steps}, attention_steps {self.attention_steps}, "
            f"{self.attention_mode}, {self.blend}"
        )


PRESETS = {
    "paper 2026": Preset(0.6, 0.5, "adaptive", "qk"),
    "paper 2024": Preset(0.6, 0.5, "fixed", "qk"),
    "keep more content": Preset(0.8, 0.8, "adaptive", "qk"),
    "take more style": Preset(0.4, 0.3, "adaptive", "qk"),
}
"""The papers' 30 and 25 of 50 steps (adaptive in 2026, fixed in 2024), and one step to either side."""


def windows(name: str, steps: int) -> Windows:
    """A preset's settings for a run of S steps. Raises ValueError for a name that there is not."""
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {[CUSTOM, *PRESETS]}, got {name!r}.")
    preset = PRESETS[name]
    return Windows(round(preset.feature * steps), round(preset.attention * steps), preset.mode, preset.blend)
