"""Stochastic inversion inside the host's sampling machinery, and the noise levels of the run that goes on."""

from __future__ import annotations

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ....diffstyler_core.diffusion.schedule import NoiseSchedule
from ....diffstyler_core.diffusion.stochastic_inversion import (
    exploding,
    sigmas_of_part,
    stochastic_inversion,
    with_statistics_of,
)
from ..checks.conditioning import Conditioning
from .runs import SourceGuider, run_guider


def invert_stochastically(
    model: ModelPatcher, latent: Tensor, conditioning: Conditioning, schedule: NoiseSchedule, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(samples [B, C, H, W] that the host's samplers go on from without adding noise, their SIGMAS).

    noise: [B, C, H, W] of unit variance. schedule: the part of the run that is left. One UNet evaluation.
    """

    def run(denoise: Denoiser, z: Tensor, on_step: OnStep) -> Tensor:
        z_t, x0 = stochastic_inversion(denoise, z, schedule, noise.to(z))
        on_step(0, 1, x0)
        return exploding(z_t, schedule)

    guider = SourceGuider(model)
    guider.set_source(conditioning)
    return run_guider(guider, latent, run, schedule, 1), torch.tensor(sigmas_of_part(schedule))


def noise_like(latent: Tensor, seed: int, batch_index: list[int] | None = None) -> Tensor:
    """The noise that the host's KSampler would add to a LATENT with that seed."""
    noise: Tensor = comfy.sample.prepare_noise(latent, seed, batch_index)
    return noise


def styled_latent(model: ModelPatcher, content: Tensor, style: Tensor) -> Tensor:
    """The content's latent with the style latent's mean and deviation per channel, taken in the model's scale."""
    scaled = with_statistics_of(model.model.process_latent_in(content), model.model.process_latent_in(style))
    samples: Tensor = model.model.process_latent_out(scaled)
    return samples
