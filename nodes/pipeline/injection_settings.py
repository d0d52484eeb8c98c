"""Injection Settings: which captured sites are injected, how long and how strongly (method.md section 4)."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from .. import sockets
from ..host import text as host_text
from ..inputs.layers import ALL, layers_of, readable_layers
from ..inputs.preset import Chosen, preset_input, settings_of


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
                preset_input(),
                layers_input("feature_layers", "feature"),
                layers_input("self_attention_layers", "self-attention"),
                layers_input("cross_attention_layers", "cross-attention"),
            ],
            outputs=[
                sockets.Injection.Output(
                    "injection", tooltip="For the Injected LoRA Sampler or Guider, or a Regional Style."
                )
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(
        cls,
        feature_layers: str | None = ALL,
        self_attention_layers: str | None = ALL,
        cross_attention_layers: str | None = ALL,
        preset: object = None,
    ) -> bool | str:
        """Lists that cannot be read are refused before anything is run. The host hands ``preset`` over unasked."""
        return readable_layers(
            feature_layers=feature_layers,
            self_attention_layers=self_attention_layers,
            cross_attention_layers=cross_attention_layers,
        )

    @classmethod
    def execute(
        cls,
        feature_layers: str,
        self_attention_layers: str,
        cross_attention_layers: str,
        preset: Chosen = None,
    ) -> io.NodeOutput:
        windows, said = settings_of(preset)
        settings = replace(
            windows,
            feature_layers=layers_of(feature_layers, "feature_layers"),
            self_attention_layers=layers_of(self_attention_layers, "self_attention_layers"),
            cross_attention_layers=layers_of(cross_attention_layers, "cross_attention_layers"),
        )
        return host_text.output(settings, text=f"{said}: {settings}")
