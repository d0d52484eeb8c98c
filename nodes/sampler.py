"""Injected LoRA Sampler: the styles' run with the content injected (method.md sections 4 to 6)."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..diffstyler_core import ddim
from ..diffstyler_core.capture import Capture
from ..diffstyler_core.ddim import Denoiser, OnStep
from ..diffstyler_core.regions import localize
from ..diffstyler_core.trajectory import Trajectory
from . import host_text, sockets
from .host_injection import Injection, Settings, file_fingerprint, prepare
from .host_injection_inputs import added_inputs, injection_inputs
from .host_inputs import Conditioning, one_latent
from .host_lora import NO_LORA
from .host_sampling import InjectedGuider, run_guider, to_exploding, to_preserving


def sample_injected(
    model: ModelPatcher,
    capture: Capture,
    injection: Injection,
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    start: Tensor,
) -> Tensor:
    """DDIM sampling of ``start`` (a LATENT's samples at the noisiest level) -> the stylised latent's samples.

    Where the injection keeps the content, every level takes it from the trajectory (eq. 7). Without any style that
    covers anything the result is the content, and no evaluation is made.
    """
    trajectory, inside = capture.trajectory, injection.inside
    schedule = trajectory.schedule
    if not injection.branches:
        return model.model.process_latent_out(trajectory.content)

    def at_level(level: int, z: Tensor) -> Tensor:
        return z if inside is None else localize(z, trajectory.latents[level].to(z), inside)

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        def show(step: int, steps: int, x0: Tensor) -> None:
            on_step(step, steps, at_level(schedule.steps, x0))

        return ddim.sample(denoise, to_preserving(x, schedule), schedule, show, at_level)

    guider = InjectedGuider(model, capture, injection.plan, injection.branches)
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
            search_aliases=["style transfer", "plug and play", "regional style", "diffstyler"],
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
        start_latent: dict[str, Any] | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        injection = prepare(model, features, Settings(**settings))
        start = choose_start(model, features.trajectory, start_latent)
        samples = sample_injected(model, features, injection, positive, negative, cfg, start)
        return host_text.output({"samples": samples.to("cpu")}, text=injection.words, node=cls)
