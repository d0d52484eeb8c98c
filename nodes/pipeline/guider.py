"""Injected LoRA Guider: the sampler's prediction for SamplerCustomAdvanced, with any sampler and SIGMAS."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.settings import InjectionSettings
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from ...diffstyler_core.styles.regions import Outside
from ...diffstyler_core.styles.style import Styles
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.lora.files import NO_LORA, file_fingerprint
from ..host.sampling.guider import InjectedGuider
from ..host.sampling.injection import Base, prepare, require_run
from ..host.sampling.runs import sigmas_of
from ..host.sampling.shared_frames import sharing_words
from ..host.sampling.stylize import start_notes
from ..host.types import ModelPatcher
from ..inputs.injection import injected, region_inputs, run_inputs
from ..inputs.preset import Chosen


class InjectedLoRAGuider(io.ComfyNode):
    """The injected prediction as a GUIDER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_InjectedGuider",
            display_name="Injected LoRA Guider",
            category=sockets.CATEGORY,
            description="What the Injected LoRA Sampler predicts at a step, for SamplerCustomAdvanced with a sampler "
            "of your choice. Wire Disable Noise, these sigmas, and the x_T of DDIM Invert as latent_image; with euler "
            "the result is the Injected LoRA Sampler's.",
            search_aliases=[
                "custom sampler",
                "regional style",
                "diffstyler",
            ],
            inputs=[*run_inputs(), *region_inputs()],
            outputs=[
                io.Guider.Output("guider", tooltip="For SamplerCustomAdvanced."),
                io.Sigmas.Output("sigmas", tooltip="The noise levels of the content's trajectory."),
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str = NO_LORA, **_: Any) -> str:
        """A changed file is another LoRA, though its name is the same."""
        return file_fingerprint(lora_name)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        features: Capture | Trajectory,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        lora_name: str,
        lora_strength: float,
        lora: Lora | LoraSchedule | None = None,
        styles: Styles | None = None,
        outside: Outside = "content",
        mask_grow: int = 0,
        mask_feather: int = 0,
        preset: Chosen = None,
        injection: InjectionSettings | None = None,
    ) -> io.NodeOutput:
        base = Base(model, features, *injected(preset, injection))
        require_run(base, positive, negative, cfg)
        prepared = prepare(base, lora, lora_name, lora_strength, styles, outside, mask_grow, mask_feather)
        guider = InjectedGuider(model, base.trajectory, prepared.composition)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        sigmas = sigmas_of(base.trajectory.schedule)
        shared = sharing_words(model, base.trajectory.frame_count)
        left = start_notes(
            prepared.composition.branches,
            "a guider cannot change its start: wire AdaIN Latent between the inversion's x_T and latent_image",
        )
        return host_text.output(guider, sigmas, text="\n".join((*prepared.words, *shared, *left)))
