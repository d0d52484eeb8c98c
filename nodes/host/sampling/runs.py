"""Running the core's loops inside the host's guider and sampler machinery.

Model loading, memory, previews, interrupts, ControlNet and other packs' wrappers work because it is the host that
calls the UNet. Latents cross this border in the host's scale (``process_latent_in``), noise levels as sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import comfy.samplers
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ....diffstyler_core.diffusion.schedule import NoiseSchedule
from ....diffstyler_core.diffusion.trajectory import Trajectory
from .. import text as host_text
from ..checks.conditioning import Conditioning
from ..lora.forwards import Forwards
from .forward import Acting, Options, acting_options

Run = Callable[[Denoiser, Tensor, OnStep], Tensor]
"""A core loop: (model, start latent in the host's scale, progress) -> resulting latent."""


class RunSampler(comfy.samplers.Sampler):
    """A host sampler whose loop is one of the core's. ``name``: what the node that runs calls its steps."""

    def __init__(self, run: Run, name: str = "step") -> None:
        self._run, self._name = run, name

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Called by the host's guider. ``noise`` is not used: the start latent holds it all."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return model_wrap(x, sigma, model_options=extra_args["model_options"], seed=extra_args.get("seed"))

        say = host_text.Counter(self._name)

        def on_step(step: int, steps: int, x0: Tensor) -> None:
            say(step + 1, steps)
            if callback is not None:
                callback(step, x0, x0, steps)

        return self._run(denoise, latent_image, on_step)


class SourceGuider(comfy.samplers.CFGGuider):
    """One conditioning, no guidance, exactly one UNet row per content and evaluation.

    ``acting`` acts in every evaluation. A guider lives for one run.
    """

    acting = Acting()

    def __init__(self, model: ModelPatcher) -> None:
        super().__init__(model)
        self._forwards = Forwards()

    def set_source(self, conditioning: Conditioning) -> None:
        """The conditioning that the content is predicted with."""
        self.inner_set_conds({"positive": conditioning})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> Tensor:
        """The denoised x0 for the one conditioning."""
        options = acting_options(model_options, self.acting, self._forwards)
        return comfy.samplers.calc_cond_batch(self.inner_model, [self.conds["positive"]], x, timestep, options)[0]


def guided_source(
    model: ModelPatcher, conditioning: Conditioning, negative: Conditioning | None, cfg: float
) -> comfy.samplers.CFGGuider:
    """The content predicted with its prompt; with guidance against ``negative`` where cfg is not 1."""
    if cfg == 1.0 or negative is None:
        source = SourceGuider(model)
        source.set_source(conditioning)
        return source
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning, negative)
    guider.set_cfg(cfg)
    return guider


def sigmas_of(schedule: NoiseSchedule) -> Tensor:
    """The noise levels of a run as the host's SIGMAS [S + 1]; the last one is the picture's, at abar_0."""
    return torch.tensor([schedule.sigma(t) for t in (*schedule.timesteps, 0)], dtype=torch.float32)


SEED = 0
"""Our runs draw nothing. A model that does (unCLIP adds noise to a picture's embedding) draws the same in each."""


def run_guider(
    guider: comfy.samplers.CFGGuider, latent: Tensor, run: Run, schedule: NoiseSchedule, steps: int, name: str = "step"
) -> Tensor:
    """Runs a core loop over ``guider`` with the host's progress bar and previews, and words on the node.

    ``latent`` is not changed.
    """
    callback = latent_preview.prepare_callback(guider.model_patcher, steps)
    noise, sampler = torch.zeros_like(latent), RunSampler(run, name)
    sigmas = sigmas_of(schedule)
    return guider.sample(noise, latent, sampler, sigmas, callback=callback, disable_pbar=True, seed=SEED)


def denoise_content(denoise: Denoiser, trajectory: Trajectory, step: int, like: Tensor) -> Tensor:
    """x0 [B, C, H, W] of one evaluation of the contents at (z_t, t) of a step, on the device of ``like``."""
    sigma = trajectory.schedule.sigma(trajectory.schedule.timesteps[step])
    x = trajectory.latents[step].to(like) * math.sqrt(1.0 + sigma**2)
    return denoise(x, torch.full((len(x),), sigma, device=like.device))


def to_exploding(z: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z at the noisiest level as the host's samplers expect it: x = z sqrt(1 + sigma^2)."""
    return z * math.sqrt(1.0 + schedule.sigma(schedule.timesteps[0]) ** 2)


def to_preserving(x: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z of an x at the noisiest level: the inverse of ``to_exploding``."""
    return x / math.sqrt(1.0 + schedule.sigma(schedule.timesteps[0]) ** 2)
