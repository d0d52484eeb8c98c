"""Stochastic DDIM: how much fresh noise a step adds, and each step's own noise of a picture (CycleDiffusion)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .schedule import NoiseSchedule

Formula = Literal["dual-style", "DDIM"]
FORMULAS: tuple[Formula, ...] = ("dual-style", "DDIM")
ROUNDING = 1e-9
"""Relative: an eta at its bound, printed and typed in again, is still within it."""


def sigma_of(abar: float, abar_next: float, eta: float, formula: Formula) -> float:
    """sigma_t of the step from cumulative alpha ``abar`` to ``abar_next``, variance-preserving.

    dual-style: eta sqrt((1 - abar_t) / (1 - abar_{t-1})) sqrt(1 - abar_t / abar_{t-1}), as "Seamless Dual-Style Image
    Generation" prints it. DDIM: the first ratio the other way up (DDIM, eq. 16; CycleDiffusion's code). They differ
    by (1 - abar_t) / (1 - abar_{t-1}): nearly 1 at noise, 3 to 10 at the last steps.
    """
    ratio = (1.0 - abar) / (1.0 - abar_next)
    return eta * math.sqrt(ratio if formula == "dual-style" else 1.0 / ratio) * math.sqrt(1.0 - abar / abar_next)


def step_sigma(schedule: NoiseSchedule, step: int, eta: float, formula: Formula) -> float:
    """sigma_t of one step of a schedule."""
    return sigma_of(schedule.level_abar(step), schedule.level_abar(step + 1), eta, formula)


def largest_eta(schedule: NoiseSchedule, formula: Formula) -> tuple[float, int]:
    """(the largest eta with sigma_t^2 <= 1 - abar_{t-1} at every step, the step that bounds it)."""
    bounds = [
        (math.sqrt(1.0 - schedule.level_abar(i + 1)) / step_sigma(schedule, i, 1.0, formula), i)
        for i in range(schedule.steps)
    ]
    return min(bounds)


def require_eta(schedule: NoiseSchedule, eta: float, formula: Formula) -> None:
    """Raises ValueError for an unknown formula, for eta that is no number above 0, and for one too large.

    A sigma_t^2 above 1 - abar_{t-1} is more noise than the next level holds: its square root would be of a negative
    number.
    """
    if formula not in FORMULAS:
        raise ValueError(f"formula must be one of {', '.join(FORMULAS)}, got {formula!r:.100}.")
    if not (isinstance(eta, (int, float)) and math.isfinite(eta) and eta > 0.0):
        raise ValueError(
            f"eta must be a number above 0, got {eta!r:.40}: without noise of its own a step has none to recover. "
            "For eta 0 use DDIM Invert."
        )
    if schedule.timesteps[-1] == 0:
        raise ValueError("a stochastic run's last step must lie above timestep 0, where nothing is left to denoise.")
    largest, step = largest_eta(schedule, formula)
    if eta <= largest * (1.0 + ROUNDING):
        return
    t, steps = schedule.timesteps[step], schedule.steps
    other = ", or choose the formula 'DDIM', which takes eta up to 1" if formula == "dual-style" else ""
    raise ValueError(
        f"eta: {eta:g} adds more noise at step {step} of {steps} (t = {t}) than the next level holds (sigma^2 > 1 - "
        f"abar). With the formula '{formula}' and these steps eta goes up to {math.floor(1e4 * largest) / 1e4:g}. "
        f"Lower eta, take more steps{other}."
    )


class Jump(NamedTuple):
    """What a stochastic step adds, in the variance-exploding scale of the level that it arrives at.

    drift: sqrt(1 - abar_{t-1} - sigma_t^2), the factor of eps. sigma: sigma_t, the factor of ``noise`` [1, C, H, W].
    """

    drift: float
    sigma: float
    noise: Tensor

    def seen_by_euler(self, x: Tensor, x0: Tensor, sigma: float, after: float) -> Tensor:
        """The x0 that takes a first-order sampler from x to where stochastic DDIM goes, all [B, C, H, W].

        x at noise level ``sigma``; ``after`` is the level that the sampler goes to next, below it.
        """
        eps = (x - x0) / sigma
        away = (self.drift - after) * eps + self.sigma * self.noise.to(x)
        return x0 + sigma / (sigma - after) * away


class StepNoises(NamedTuple):
    """z_t of every step of a run: what stochastic DDIM adds, sigma_t z_t.

    tensors: one [1, C, H, W] for each step, fp32 on the CPU. eta, formula: of sigma_t.
    """

    tensors: tuple[Tensor, ...]
    eta: float
    formula: Formula

    def check(self, schedule: NoiseSchedule, shape: torch.Size) -> None:
        """Raises ValueError when the noises do not fit the steps, the latents' shape, or sigma_t its bound."""
        if len(self.tensors) != schedule.steps:
            raise ValueError(f"a run of {schedule.steps} steps has as many noises, got {len(self.tensors)}.")
        shapes = {tuple(noise.shape) for noise in self.tensors}
        if shapes != {tuple(shape)}:
            raise ValueError(f"every noise has the latents' shape {list(shape)}, got {sorted(shapes)}.")
        require_eta(schedule, self.eta, self.formula)

    def arrive(self, schedule: NoiseSchedule, step: int, x0: Tensor, eps: Tensor) -> Tensor:
        """z at the level after ``step``: the document's update for x_{t-1} (DDIM, eq. 12)."""
        noise = self.tensors[step].to(x0)
        return mean_after(schedule, step, x0, eps, self.eta, self.formula) + (
            step_sigma(schedule, step, self.eta, self.formula) * noise
        )

    def jump(self, schedule: NoiseSchedule, step: int) -> Jump:
        """What ``step`` adds, in the variance-exploding scale."""
        abar, sigma = schedule.level_abar(step + 1), step_sigma(schedule, step, self.eta, self.formula)
        drift = math.sqrt(max(1.0 - abar - sigma**2, 0.0) / abar)
        return Jump(drift, sigma / math.sqrt(abar), self.tensors[step])

    def __str__(self) -> str:
        return f"eta {self.eta:g} ({self.formula} formula)"


def mean_after(schedule: NoiseSchedule, step: int, x0: Tensor, eps: Tensor, eta: float, formula: Formula) -> Tensor:
    """mu: sqrt(abar_{t-1}) x0 + sqrt(1 - abar_{t-1} - sigma_t^2) eps, the mean that a step's noise is added to."""
    abar, sigma = schedule.level_abar(step + 1), step_sigma(schedule, step, eta, formula)
    return math.sqrt(abar) * x0 + math.sqrt(max(1.0 - abar - sigma**2, 0.0)) * eps
