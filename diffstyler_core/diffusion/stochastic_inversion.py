"""Stochastic inversion (InST, section 3.3): the content at one noise level, with the noise the model sees there."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .ddim import Denoiser, join, predict, split
from .schedule import NoiseSchedule


def last_part(schedule: NoiseSchedule, strength: float) -> NoiseSchedule:
    """The last ``int(strength * S)`` steps of a run, as InST counts them.

    Raises ValueError when there would be none, and for a strength outside of 0..1.
    """
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength must lie above 0 and at most at 1, got {strength!r}.")
    steps = int(strength * schedule.steps + 1e-9)  # 0.7 * 50 is a hair below 35
    if steps < 1:
        raise ValueError(
            f"strength: {strength:g} of {schedule.steps} steps is not one whole step. "
            f"Set it to {1 / schedule.steps:.3g} or more, or take more steps."
        )
    return replace(schedule, timesteps=schedule.timesteps[-steps:])


def stochastic_inversion(
    denoise: Denoiser, z0: Tensor, schedule: NoiseSchedule, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(z_t, x0 estimate) [B, C, H, W] at the noisiest level of ``schedule``. One evaluation.

    z0 is noised with ``noise``, the model says which noise it sees there, and z0 is noised anew with that:
    eps = eps_theta(sqrt(abar) z0 + sqrt(1 - abar) noise, t), z_t = sqrt(abar) z0 + sqrt(1 - abar) eps.
    """
    t = schedule.timesteps[0]
    noisy = join(z0, noise, schedule.abar[t])
    x0, eps = split(predict(denoise, noisy, schedule, t), noisy, schedule.abar[t], schedule.prediction)
    return join(z0, eps, schedule.abar[t]), x0


def with_statistics_of(content: Tensor, style: Tensor) -> Tensor:
    """The content [B, C, H, W] with mean and deviation per channel of the style [1 or B, C, h, w] (AdaIN).

    As InST's published code does it to the content's latent; deviation with the unbiased variance + 1e-5.
    """
    deviation, mean = _statistics(content)
    wanted, centre = _statistics(style)
    return (content - mean) / deviation * wanted + centre


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    return (variance + 1e-5).sqrt(), mean


def sigmas_of_part(schedule: NoiseSchedule) -> list[float]:
    """The noise levels of the run that goes on from there, down to the clean picture."""
    return [*(schedule.sigma(t) for t in schedule.timesteps), 0.0]


def exploding(z: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z at the noisiest level in the scale of the host's samplers: x = z / sqrt(abar)."""
    return z / math.sqrt(schedule.abar[schedule.timesteps[0]])
