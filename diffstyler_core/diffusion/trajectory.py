"""The content trajectory {z_t}, and DDIM inversion, which makes one (method.md section 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .ddim import Denoiser, OnStep, ignore_step, step_up
from .schedule import NoiseSchedule
from .stochastic import Jump, StepNoises


class _Fields(NamedTuple):
    latents: tuple[Tensor, ...]
    schedule: NoiseSchedule
    family: str
    source: str
    noises: StepNoises | None


class Trajectory(_Fields):
    """The content's latent at every level: the guidance source of every sampling step.

    latents: S + 1 tensors [B, C, H, W] of B contents (frames), fp32 on the CPU, variance-preserving; ``latents[i]`` is
        the one that step i starts from, ``latents[S]`` the contents themselves.
    schedule: the levels they belong to.
    family: which models the latents fit (an opaque name made by the node that inverted).
    source: identity of the conditioning that they were inverted with.
    noises: what each step adds on the way down (CycleDiffusion); None for DDIM, whose steps add nothing.

    A tuple, so that the host's cache sees the tensors and counts their memory.
    """

    __slots__ = ()

    def __new__(
        cls,
        latents: tuple[Tensor, ...],
        schedule: NoiseSchedule,
        family: str = "",
        source: str = "",
        noises: StepNoises | None = None,
    ) -> Trajectory:
        if len(latents) != schedule.steps + 1:
            raise ValueError(
                f"a trajectory of {schedule.steps} steps holds {schedule.steps + 1} latents, got {len(latents)}."
            )
        shapes = {tuple(z.shape) for z in latents}
        if len(shapes) != 1 or latents[0].ndim != 4 or latents[0].shape[0] < 1:
            raise ValueError(f"every latent of a trajectory has one shape [B, C, H, W], got {sorted(shapes)}.")
        if noises is not None:
            noises.check(schedule, latents[0].shape)
        return super().__new__(cls, tuple(latents), schedule, family, source, noises)

    @property
    def content(self) -> Tensor:
        """The latents that were inverted [B, C, H, W]."""
        return self.latents[-1]

    @property
    def frame_count(self) -> int:
        """B, how many contents (frames) there are."""
        return len(self.content)

    def frames(self, start: int, stop: int) -> Trajectory:
        """The trajectory of some of the contents. Raises ValueError for one with noises, which is of one content."""
        if (start, stop) == (0, self.frame_count):
            return self
        if self.noises is not None:
            raise ValueError("a trajectory with noises cannot be split into frames.")
        return Trajectory(tuple(z[start:stop] for z in self.latents), self.schedule, self.family, self.source)

    @classmethod
    def joined(cls, parts: Sequence[Trajectory]) -> Trajectory:
        """One trajectory of the contents of several over the same schedule, one after the other."""
        if len(parts) == 1:
            return parts[0]
        levels = zip(*(part.latents for part in parts), strict=True)
        return cls(tuple(torch.cat(z) for z in levels), parts[0].schedule, parts[0].family, parts[0].source)

    @property
    def noise(self) -> Tensor:
        """x_T, the latents at the noisiest level [B, C, H, W]."""
        return self.latents[0]

    def jump(self, step: int) -> Jump | None:
        """What a step adds beside the model's prediction; None where it adds nothing."""
        return None if self.noises is None else self.noises.jump(self.schedule, step)

    def exploding_at(self, sigma: float) -> Tensor:
        """x = z sqrt(1 + sigma^2) [B, C, H, W] of the content's path at any noise level.

        Between two levels it lies on the straight line that DDIM draws in (sigma, x), with noises too; below the last
        level, on the line to the content at sigma 0.
        """
        levels = [math.sqrt(1.0 / self.schedule.level_abar(i) - 1.0) for i in range(self.schedule.steps + 1)]
        if sigma >= levels[0]:
            return self.latents[0] * math.sqrt(1.0 + sigma**2)
        levels, latents = [*levels, 0.0], [*self.latents, self.content]
        right = next(i for i, s in enumerate(levels) if s <= sigma)
        share = (sigma - levels[right]) / (levels[right - 1] - levels[right])
        left, end = (latents[i] * math.sqrt(1.0 + levels[i] ** 2) for i in (right - 1, right))
        return end if share == 0.0 else torch.lerp(end, left, share)

    @property
    def megabytes(self) -> float:
        """Memory of the latents, and of the noises where there are any, in MB (10^6 bytes)."""
        held = (*self.latents, *(() if self.noises is None else self.noises.tensors))
        return sum(z.numel() * z.element_size() for z in held) / 1e6


def invert(
    denoise: Denoiser,
    content: Tensor,
    schedule: NoiseSchedule,
    refinements: int = 0,
    on_step: OnStep = ignore_step,
    family: str = "",
    source: str = "",
) -> Trajectory:
    """DDIM inversion of content latents [B, C, H, W] along ``schedule.ascent()``.

    Costs ``len(schedule.ascent()) * (1 + refinements)`` evaluations of B rows. Raises ValueError for a negative number
    of refinements, and when a latent stops being finite.
    """
    if content.ndim != 4 or content.shape[0] < 1:
        raise ValueError(f"inversion takes content latents [B, C, H, W], got shape {tuple(content.shape)}.")
    if refinements < 0:
        raise ValueError(f"refinements must be 0 or more, got {refinements}.")
    levels: list[Tensor] = [content.detach().float().cpu()] * (schedule.steps + 1)
    ascent = schedule.ascent()
    z = content.float()
    for i, (t, abar_from, level) in enumerate(ascent):
        z = step_up(denoise, z, schedule, t, abar_from, refinements)
        if not torch.isfinite(z).all():
            raise ValueError(
                f"inversion broke at timestep {t}: the latent is no longer finite. "
                "Check the content latent, or use fewer refinements or another precision."
            )
        if level is not None:
            levels[level] = z.detach().cpu()
        on_step(i, len(ascent), z)
    return Trajectory(tuple(levels), schedule, family, source)
