"""What a sampler must be, to go the way of a trajectory with noises (CycleDiffusion)."""

from __future__ import annotations

from typing import Any

import comfy.k_diffusion.sampling
import torch
from torch import Tensor

from ....diffstyler_core.diffusion.schedule import NoiseSchedule
from .runs import RunSampler, sigmas_of

CLOSE = 1e-4
"""Relative distance of two noise levels that are the same one."""
REMEDY = "or invert with DDIM Invert, whose trajectory goes with any sampler and levels"


def require_levels(sampler: Any, sigmas: Tensor, schedule: NoiseSchedule) -> None:
    """Raises ValueError unless a run takes plain Euler steps from level to level of the schedule, or of a part of it.

    A noise belongs to the step between two levels. At other levels there is none for it, and a sampler of second order
    or with noise of its own would not arrive where the noise is to be added.
    """
    if not isinstance(sampler, RunSampler):
        _require_euler(sampler)
    if not _part_of(sigmas, sigmas_of(schedule)):
        raise ValueError(
            f"sigmas: the trajectory is CycleDiffusion's, with a noise for each of its own {schedule.steps} steps, and "
            f"the run visits {len(sigmas)} other levels ({_range(sigmas)}). Wire the guider's sigmas, {REMEDY}."
        )


def _require_euler(sampler: Any) -> None:
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__)
    if function is not comfy.k_diffusion.sampling.sample_euler:
        raise ValueError(
            f"sampler: the trajectory is CycleDiffusion's, with noises that belong to first-order steps, got {name}. "
            f"Choose euler or ddim, {REMEDY}."
        )
    churn = getattr(sampler, "extra_options", {}).get("s_churn", 0.0)
    if churn:
        raise ValueError(
            f"sampler: the trajectory is CycleDiffusion's, with noises of its own, got euler with s_churn {churn:g}. "
            f"Set s_churn to 0, {REMEDY}."
        )


def _part_of(sigmas: Tensor, levels: Tensor) -> bool:
    """Whether a run's levels are some of the schedule's, one after the other. A run of no step is."""
    sigmas, count = sigmas.detach().cpu().float(), len(sigmas)
    if count < 2:
        return True
    starts = range(len(levels) - count + 1)
    return any(torch.allclose(levels[i : i + count], sigmas, rtol=CLOSE, atol=0.0) for i in starts)


def _range(sigmas: Tensor) -> str:
    return f"{float(sigmas[0]):.4g} .. {float(sigmas[-1]):.4g}"
