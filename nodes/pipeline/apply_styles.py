"""Apply Styles: regional styles, LoRAs and injection in the run of any sampler (DiffStyler 2026, eqs. 6-9)."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.settings import InjectionSettings
from ...diffstyler_core.styles.regions import Outside
from ...diffstyler_core.styles.style import Styles
from .. import sockets
from ..host import text as host_text
from ..host.sampling.applied import applied, require_no_hooks
from ..host.sampling.branch_run import Between
from ..host.sampling.injection import Base, in_regions, require_model
from ..host.sampling.stylize import start_notes
from ..host.types import ModelPatcher
from ..inputs.injection import between_input, between_words, injected, outside_input
from ..inputs.preset import Chosen, preset_input
from ..inputs.widgets import mask_edge_inputs

NAME = "Apply Styles"


class ApplyStyles(io.ComfyNode):
    """A MODEL in whose runs every style acts in its region."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ApplyStyles",
            display_name=NAME,
            category=sockets.CATEGORY,
            description="Regional styles, with their LoRAs, switches, prompts and injection, in the run of any "
            "sampler: KSampler, SamplerCustom, and what else samples a MODEL. No weight is patched. Bypassed, the "
            "MODEL is as before.",
            search_aliases=[
                "ksampler styles",
                "regional lora",
                "regional style",
                "regional prompting",
                "attention couple",
                "lora schedule",
                "any sampler",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that samples; style LoRAs are applied inside its run."),
                io.MultiType.Input(
                    "features",
                    types=[sockets.Features, sockets.Trajectory],
                    tooltip="From Capture Features/Attention. Or a TRAJECTORY alone: then nothing is injected, and "
                    "preset has no effect.",
                ),
                sockets.Styles.Input("styles", tooltip="From Regional Style: a LoRA, prompt and mask per region."),
                preset_input(),
                between_input(),
                outside_input(optional=False),
                *mask_edge_inputs(),
                sockets.Injection.Input(
                    "injection",
                    optional=True,
                    tooltip="From Injection Settings, instead of preset. A Regional Style with its own uses those.",
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="For any sampler. The one wired in is not changed.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        features: Capture | Trajectory,
        styles: Styles,
        between: Between,
        outside: Outside,
        mask_grow: int,
        mask_feather: int,
        preset: Chosen = None,
        injection: InjectionSettings | None = None,
    ) -> io.NodeOutput:
        base = Base(model, features, *injected(preset, injection), own_steps=False)
        require_model(base)
        require_no_hooks(styles, NAME)
        prepared = in_regions(base, styles, outside, mask_grow, mask_feather)
        patched = applied(model, base.trajectory, prepared.composition, between, NAME)
        left = start_notes(prepared.composition.branches, "a MODEL has no start: wire AdaIN Latent before the sampler")
        words = (*prepared.words, between_words(between, base.steps), *left)
        return host_text.output(patched, text="\n".join(words))
