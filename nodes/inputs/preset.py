"""The injection's preset: a choice of windows that go together, or 'custom' with a widget for each."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...diffstyler_core.injection.attention import BLENDS
from ...diffstyler_core.injection.plan import MODES
from ...diffstyler_core.injection.settings import PRESETS, InjectionSettings
from .widgets import share_input

CUSTOM = "custom"
PAPER = next(iter(PRESETS.values()))

Chosen = dict[str, Any] | None
"""A preset as the host hands it over: {"preset": its name}, and for 'custom' the values of its widgets.

None where the prompt names no preset, or one that there is not: the host hands none over then.
"""


def preset_input() -> io.DynamicCombo.Input:
    """The widget; the four values show when it is 'custom'."""
    named = [io.DynamicCombo.Option(name, []) for name in PRESETS]
    meanings = ". ".join(f"{name}: {settings}" for name, settings in PRESETS.items())
    return io.DynamicCombo.Input(
        "preset",
        options=[*named, io.DynamicCombo.Option(CUSTOM, custom_inputs())],
        tooltip=f"What of the content is injected, and how long. {meanings}. {CUSTOM}: values of your own.",
    )


def custom_inputs() -> list[io.Input]:
    """The windows of 'custom', the paper's to begin with."""
    return [
        share_input(
            "feature_end_percent",
            PAPER.feature_end,
            "The content's features override the style run's up to this share of the run: 0 never, 0.5 its first "
            "half, 1 all of it.",
        ),
        share_input(
            "attention_end_percent",
            PAPER.attention_end,
            "The content's attention overrides fully up to this share of the run. More keeps more of the content.",
        ),
        io.Combo.Input(
            "attention_mode",
            options=list(MODES),
            default=PAPER.mode,
            tooltip="adaptive: after the attention's window the style's own attention comes in gradually (2026). "
            "fixed: the content's attention stops there (2024).",
        ),
        io.Combo.Input(
            "blend",
            options=list(BLENDS),
            default=PAPER.blend,
            tooltip="What adaptive attention blends: q and k before the softmax, or the two attention maps.",
        ),
    ]


def settings_of(chosen: Chosen) -> tuple[InjectionSettings, str]:
    """(the settings that a choice stands for, where they come from in words).

    Raises ValueError for a preset that there is not, and for values out of their bounds.
    """
    name = None if chosen is None else chosen["preset"]
    if chosen is not None and name == CUSTOM:
        ends = chosen["feature_end_percent"], chosen["attention_end_percent"]
        return InjectionSettings(*ends, chosen["attention_mode"], chosen["blend"]), CUSTOM
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {[*PRESETS, CUSTOM]}, got {name!r}.")
    return PRESETS[name], f"preset {name}"
