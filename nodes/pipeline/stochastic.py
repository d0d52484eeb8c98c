"""Stochastic Inversion: the content at one noise level, as the style's prompt sees it (InST, section 3.3)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...diffstyler_core.diffusion.stochastic_inversion import last_part
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.latents import one_latent, some_latents
from ..host.checks.numbers import require_number
from ..host.model import schedule_of
from ..host.sampling.stochastic import invert_stochastically, noise_like, styled_latent
from ..host.types import ModelPatcher


class StochasticInversion(io.ComfyNode):
    """The start of a stylised run, from a content latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_StochasticInversion",
            display_name="Stochastic Inversion",
            category=sockets.CATEGORY,
            description="Noises a picture's latent, asks the model which noise it sees there with the style's prompt, "
            "and noises the picture with that instead: a start that keeps the content (InST). One UNet evaluation.",
            search_aliases=[
                "inst",
                "stochastic inversion",
                "img2img",
                "denoise strength",
                "inst style transfer",
                "noise prediction",
                "inversion",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The base model."),
                io.Latent.Input("latent", tooltip="The content pictures, encoded with this checkpoint's VAE."),
                io.Conditioning.Input(
                    "style", tooltip="Prompt of the style, e.g. from Train Style Embedding; the sampler's positive too."
                ),
                io.Float.Input(
                    "strength",
                    default=0.7,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Share of the run that is sampled anew. More gives more style and keeps less of the "
                    "content. InST uses 0.7.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=999,
                    tooltip="Steps of a whole run; strength x steps of them are left to the sampler.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Of the noise that the content is shown to the model with.",
                ),
                io.Latent.Input(
                    "style_latent",
                    optional=True,
                    tooltip="The style picture, encoded. Wired, the content first takes its mean and deviation per "
                    "channel (AdaIN), as InST's published code does: colours follow the style at once.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent",
                    tooltip="For SamplerCustom with add_noise off (or SamplerCustomAdvanced with Disable Noise).",
                ),
                io.Sigmas.Output("sigmas", tooltip="The noise levels that are left, for that sampler."),
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        latent: dict[str, Any],
        style: Conditioning,
        strength: float,
        steps: int,
        seed: int,
        style_latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        schedule = last_part(schedule_of(model, steps), require_number(strength, "strength", 0.0, 1.0))
        samples = some_latents(latent, model, "latent")
        require_conditioning(style, model, "style", one=True)
        lines = [f"{schedule.steps} of {steps} steps are left to the sampler, from t = {schedule.timesteps[0]}"]
        if style_latent is not None:
            samples = styled_latent(model, samples, one_latent(style_latent, model, "style_latent"))
            lines.append("the content has the style latent's mean and deviation per channel")
        if latent.get("noise_mask") is not None:
            lines.append("note: the latent's noise mask is not used and not handed on")
        noise = noise_like(samples, seed, latent.get("batch_index"))
        started, sigmas = invert_stochastically(model, samples, style, schedule, noise)
        return host_text.output({"samples": started.cpu().float()}, sigmas, text="\n".join(lines))
