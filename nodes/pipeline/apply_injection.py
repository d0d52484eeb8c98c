"""Apply Injection: the content's features and attention in the run of any sampler (DiffStyler 2026, eqs. 4-6)."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.settings import InjectionSettings
from .. import sockets
from ..host import text as host_text
from ..host.sampling.applied import applied
from ..host.sampling.branch_run import Between
from ..host.sampling.injection import Base, one_style, require_model
from ..host.types import ModelPatcher
from ..inputs.injection import between_input, between_words, injected
from ..inputs.preset import Chosen, preset_input

NAME = "Apply Injection"


class ApplyInjection(io.ComfyNode):
    """A MODEL in whose runs the content is injected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ApplyInjection",
            display_name=NAME,
            category=sockets.CATEGORY,
            description="Injects the content's features and attention in the run of any sampler: KSampler, "
            "SamplerCustom, and what else samples a MODEL, with its LoRAs, ControlNets, scheduler and number of steps. "
            "Start from the x_T of DDIM Invert, or from noise of the content's size. Bypassed, the MODEL is as before.",
            search_aliases=[
                "ksampler injection",
                "unet injection",
                "feature injection",
                "attention injection",
                "inject structure",
                "plug and play",
                "pnp",
                "keep structure",
                "structure control",
                "any sampler",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that samples, LoRAs and other patches included."),
                sockets.Features.Input("features", tooltip="From Capture Features/Attention."),
                preset_input(),
                between_input(),
                sockets.Injection.Input(
                    "injection", optional=True, tooltip="From Injection Settings, instead of preset."
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="For any sampler. The one wired in is not changed.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        features: Capture,
        between: Between,
        preset: Chosen = None,
        injection: InjectionSettings | None = None,
    ) -> io.NodeOutput:
        base = Base(model, features, *injected(preset, injection), own_steps=False)
        require_model(base)
        prepared = one_style(base, None, "none", 1.0)
        patched = applied(model, base.trajectory, prepared.composition, between, NAME)
        words = (*base.describe(), between_words(between, base.steps))
        return host_text.output(patched, text="\n".join(words))
