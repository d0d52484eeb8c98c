"""Injection Settings: which captured sites are injected, how long and how strongly (method.md section 4)."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ...diffstyler_core.injection.attention import Blend
from ...diffstyler_core.injection.plan import Mode
from ...diffstyler_core.injection.settings import CUSTOM, InjectionSettings, Layers, preset
from ...diffstyler_core.injection.sites import parse_layers
from .. import sockets
from ..host import text as host_text
from ..host.inputs import require_number
from ..inputs.widgets import blend_input, mode_input, preset_input

ALL = "all"


def layers_of(text: str, name: str) -> Layers:
    """A layer list as typed into a widget; None for 'all'. Raises ValueError that names the widget."""
    return None if text.strip() == ALL else parse_layers(text, name)


def window_input(name: str, default: float, what: str) -> io.Float.Input:
    """The widget of one window's end."""
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.01,
        round=0.001,
        tooltip=f"The content's {what} up to this share of the run: 0 never, 0.5 its first half, 1 all of it.",
    )


def layers_input(name: str, what: str) -> io.String.Input:
    """The widget of one list of layers."""
    return io.String.Input(
        name,
        default=ALL,
        advanced=True,
        tooltip=f"Captured {what} layers to inject: '{ALL}', a list like 4-11 or 4,6-8, empty for none.",
    )


class InjectionSettingsNode(io.ComfyNode):
    """Windows and sites of an injection as a value that sampler, guider and Regional Style take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_InjectionSettings",
            display_name="Injection Settings",
            category=sockets.CATEGORY,
            description="What of the content is injected, and when: windows as shares of the run, which hold for any "
            "number of steps. For the Injected LoRA Sampler or Guider, or for one Regional Style.",
            search_aliases=[
                "injection",
                "plug and play",
                "pnp",
                "attention injection",
                "injection window",
                "structure",
                "keep content",
                "content strength",
                "diffstyler",
            ],
            inputs=[
                preset_input(
                    "paper 2026",
                    "Stands for the four values below, and the node says which. custom: the values below. A value "
                    "changed by hand is custom.",
                ),
                window_input("feature_end_percent", 0.6, "features override the style run's"),
                window_input("attention_end_percent", 0.5, "attention overrides fully"),
                mode_input(),
                blend_input(),
                layers_input("feature_layers", "feature"),
                layers_input("self_attention_layers", "self-attention"),
                layers_input("cross_attention_layers", "cross-attention"),
            ],
            outputs=[
                sockets.Injection.Output(
                    "injection", tooltip="For the Injected LoRA Sampler or Guider, or a Regional Style."
                )
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        preset: str,
        feature_end_percent: float,
        attention_end_percent: float,
        attention_mode: Mode,
        blend: Blend,
        feature_layers: str,
        self_attention_layers: str,
        cross_attention_layers: str,
    ) -> io.NodeOutput:
        typed = (feature_end_percent, attention_end_percent, attention_mode, blend)
        windows = settings_of(preset, *typed)
        settings = replace(
            windows,
            feature_layers=layers_of(feature_layers, "feature_layers"),
            self_attention_layers=layers_of(self_attention_layers, "self_attention_layers"),
            cross_attention_layers=layers_of(cross_attention_layers, "cross_attention_layers"),
        )
        words = str(settings) if preset == CUSTOM else f"preset {preset}: {settings}"
        if typed != (windows.feature_end, windows.attention_end, windows.mode, windows.blend):
            words += "\nnote: the preset stands in place of the values below it; choose custom to use those"
        return host_text.output(settings, text=words, node=cls)


def settings_of(
    preset_name: str, feature_end: float, attention_end: float, mode: Mode, blend: Blend
) -> InjectionSettings:
    """The preset's windows, or those of the widgets. Raises ValueError that names the input."""
    if preset_name != CUSTOM:
        return preset(preset_name)
    require_number(feature_end, "feature_end_percent", 0.0, 1.0)
    require_number(attention_end, "attention_end_percent", 0.0, 1.0)
    return InjectionSettings(feature_end, attention_end, mode, blend)
