"""CycleDiffusion's DPM-Encoder: the noise of every stochastic step that leads to a picture (arXiv 2210.05559)."""

from __future__ import annotations

import torch
from torch import Tensor

from .ddim import Denoiser, OnStep, ignore_step, join, predict, split
from .schedule import NoiseSchedule
from .stochastic import Formula, StepNoises, mean_after, require_eta, step_sigma
from .trajectory import Trajectory


def encode(
    denoise: Denoiser,
    content: Tensor,
    schedule: NoiseSchedule,
    eta: float,
    formula: Formula,
    generator: torch.Generator,
    on_step: OnStep = ignore_step,
    family: str = "",
    source: str = "",
) -> Trajectory:
    """A random path from noise to one content latent [1, C, H, W], and the noises that the model goes it with.

    x_T ~ q(x_T | x_0) at the schedule's first level; x_{t-1} ~ q(x_{t-1} | x_t, x_0), of which the last is the content
    itself; z_t = (x_{t-1} - mu(x_t, eps_theta(x_t, t))) / sigma_t. S evaluations. The next step starts from mu +
    sigma_t z_t as decoding computes it, so that roundings do not add up. generator: of the CPU, so that a seed means
    the same on every device.

    Raises ValueError for a batch, for an eta that does not fit, and when the model's answer is not finite.
    """
    if content.ndim != 4 or content.shape[0] != 1:
        raise ValueError(f"the encoder takes one content latent [1, C, H, W], got shape {tuple(content.shape)}.")
    require_eta(schedule, eta, formula)
    content = content.to(torch.promote_types(content.dtype, torch.float32))
    path, noises = _Path(content, schedule, eta, formula, generator), list[Tensor]()
    x, latents = path.start(), list[Tensor]()
    for step, t in enumerate(schedule.timesteps):
        latents.append(x.detach().cpu().float())
        x0, eps = split(predict(denoise, x, schedule, t), x, schedule.abar[t], schedule.prediction)
        mu, sigma = mean_after(schedule, step, x0, eps, eta, formula), step_sigma(schedule, step, eta, formula)
        z = (path.after(step, x) - mu) / sigma
        if not torch.isfinite(z).all():
            raise ValueError(
                f"the encoder broke at step {step} of {schedule.steps}, t = {t}: the model's answer is not finite. "
                "Check the content latent and the prompts, lower cfg, or use another precision."
            )
        noises.append(z.detach().cpu().float())
        x = mu + sigma * noises[-1].to(mu)
        on_step(step, schedule.steps, x0)
    latents.append(content.detach().cpu().float())
    return Trajectory(tuple(latents), schedule, family, source, StepNoises(tuple(noises), eta, formula))


class _Path:
    """Random latents of the forward process at the levels of a schedule, given the content."""

    def __init__(
        self, content: Tensor, schedule: NoiseSchedule, eta: float, formula: Formula, generator: torch.Generator
    ) -> None:
        self._content, self._schedule, self._generator = content, schedule, generator
        self._eta, self._formula = eta, formula

    def start(self) -> Tensor:
        """x_T ~ q(x_T | x_0)."""
        return join(self._content, self._drawn(), self._schedule.level_abar(0))

    def after(self, step: int, x: Tensor) -> Tensor:
        """x_{t-1} ~ q(x_{t-1} | x_t, x_0) of x at the level of ``step``; at the last level the content."""
        schedule, content = self._schedule, self._content
        if step == schedule.steps - 1:
            return content
        abar = schedule.level_abar(step)
        eps = (x - abar**0.5 * content) / (1.0 - abar) ** 0.5
        sigma = step_sigma(schedule, step, self._eta, self._formula)
        return mean_after(schedule, step, content, eps, self._eta, self._formula) + sigma * self._drawn()

    def _drawn(self) -> Tensor:
        return torch.randn(self._content.shape, generator=self._generator, dtype=torch.float32).to(self._content)
