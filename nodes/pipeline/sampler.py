"""Injected LoRA Sampler: the styles' run with the content injected (method.md sections 4 to 6)."""

from __future__ import annotations

import math
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion import ddim
from ...diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.injection.attention import Blend
from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.plan import Mode
from ...diffstyler_core.injection.settings import CUSTOM, InjectionSettings
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from ...diffstyler_core.styles.regions import Outside, localize
from ...diffstyler_core.styles.style import Styles
from .. import sockets
from ..host import text as host_text
from ..host.inputs import Conditioning, latent_notes, one_latent
from ..host.lora.adapters import NO_LORA
from ..host.lora.run import file_fingerprint
from ..host.sampling.guider import InjectedGuider
from ..host.sampling.injection import Base, Prepared, prepare, require_prompts
from ..host.sampling.runs import run_guider, sigmas_of, to_exploding, to_preserving
from ..inputs.injection import added_inputs, injection_inputs


def sample_injected(
    model: ModelPatcher,
    trajectory: Trajectory,
    prepared: Prepared,
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    start: Tensor,
) -> Tensor:
    """DDIM sampling of ``start`` (a LATENT's samples at the noisiest level) -> the stylised latent's samples.

    Without any style that covers anything the result is the content, and no evaluation is made.
    """
    schedule, inside = trajectory.schedule, prepared.inside
    if not prepared.branches:
        return model.model.process_latent_out(trajectory.content)

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        def show(step: int, steps: int, x0: Tensor) -> None:
            on_step(step, steps, x0 if inside is None else localize(x0, trajectory.content, inside))

        z = ddim.sample(denoise, to_preserving(x, schedule), schedule, show)
        return z * math.sqrt(1.0 + float(sigmas_of(schedule)[-1]) ** 2)

    guider = InjectedGuider(model, trajectory, prepared.branches, inside)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return run_guider(guider, start, run, schedule, schedule.steps)


def choose_start(model: ModelPatcher, trajectory: Trajectory, latent: dict[str, Any] | None) -> Tensor:
    """The samples that sampling starts from: the trajectory's x_T, or a LATENT of the same size."""
    if latent is None:
        return model.model.process_latent_out(to_exploding(trajectory.noise, trajectory.schedule))
    samples = one_latent(latent, model, "start_latent")
    if samples.shape != trajectory.noise.shape:
        raise ValueError(
            f"start_latent: {list(samples.shape)} does not fit the trajectory's {list(trajectory.noise.shape)}. "
            "Use the x_T of DDIM Invert, or a latent of the content's size."
        )
    return samples


class InjectedLoRASampler(io.ComfyNode):
    """Sampling with style LoRAs while the content's features and attention are injected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_InjectedSampler",
            display_name="Injected LoRA Sampler",
            category=sockets.CATEGORY,
            description="Samples with the style LoRA, or with several in their regions, while the content's features "
            "and attention hold its structure. Starts from the content's own noise and takes its steps from the "
            "trajectory (DDIM).",
            search_aliases=[
                "style transfer",
                "stylize",
                "style aligned",
                "neural style",
                "image to image",
                "img2img",
                "ip adapter",
                "ipadapter",
                "instantstyle",
                "reference style",
                "plug and play",
                "pnp",
                "injection",
                "attention injection",
                "attention couple",
                "regional style",
                "regional prompting",
                "diffstyler",
            ],
            inputs=[
                *injection_inputs(),
                io.Latent.Input(
                    "start_latent",
                    optional=True,
                    tooltip="Starts here instead of the content's noise, e.g. from a changed x_T of its size.",
                ),
                *added_inputs(),
            ],
            outputs=[io.Latent.Output("latent", tooltip="The stylised picture; decode it with the VAE.")],
            hidden=[io.Hidden.unique_id],
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
        features: Capture,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        feature_steps: int,
        attention_steps: int,
        attention_mode: Mode,
        blend: Blend,
        lora_name: str,
        lora_strength: float,
        lora: Lora | LoraSchedule | None = None,
        start_latent: dict[str, Any] | None = None,
        styles: Styles | None = None,
        outside: Outside = "content",
        mask_grow: int = 0,
        mask_feather: int = 0,
        preset: str = CUSTOM,
        injection: InjectionSettings | None = None,
    ) -> io.NodeOutput:
        base = Base.of(model, features, injection, preset, feature_steps, attention_steps, attention_mode, blend)
        require_prompts(base, positive, negative, cfg)
        prepared = prepare(base, lora, lora_name, lora_strength, styles, outside, mask_grow, mask_feather)
        start, trajectory = choose_start(model, features.trajectory, start_latent), features.trajectory
        samples = sample_injected(model, trajectory, prepared, positive, negative, cfg, start)
        words = (*prepared.words, *latent_notes(start_latent or {}))
        return host_text.output({"samples": samples.to("cpu")}, text="\n".join(words), node=cls)
