"""What a capture holds at noise levels between the captured ones, for samplers that visit others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.schedule import NoiseSchedule
from ..diffusion.trajectory import Trajectory
from .sites import Site
from .taps import SiteTensors

Held = Mapping[Site, SiteTensors]
"""What the content holds at each site of one noise level."""

Used = Mapping[Site, frozenset[int]]
"""By site, which of its tensors something is taken of: of q, k, v the numbers 0, 1, 2."""

SAME = 1e-5
"""Distance in log sigma of two noise levels that are one, rounded to fp32 on different ways."""


class Level(NamedTuple):
    """A noise level of a run, in the steps of a trajectory.

    sigma: variance-exploding. step: the nearest step (in log sigma), whose windows hold. t: its timestep, between two
    of the trajectory's a fraction. beside: the neighbour that it lies towards, None where it is one of the
    trajectory's levels or lies outside of them all. share: of the neighbour, in (0, 1/2].
    """

    sigma: float
    step: int
    t: float
    beside: int | None = None
    share: float = 0.0

    @classmethod
    def of(cls, schedule: NoiseSchedule, sigma: float, exactly: bool) -> Level:
        """The level at ``sigma`` itself, or (not ``exactly``) the nearest of the schedule's.

        Timesteps are interpolated as shares are, in log sigma: the network's own scale is close to linear in it.
        """
        step = schedule.step_at(sigma)
        t = schedule.timesteps[step]
        own = math.log(schedule.sigma(t))
        distance = math.log(max(sigma, 1e-10)) - own
        if not exactly or abs(distance) < SAME:
            return cls(schedule.sigma(t), step, t)
        beside = step - 1 if distance > 0.0 else step + 1
        if not 0 <= beside < schedule.steps:
            return cls(sigma, step, t)
        other = schedule.timesteps[beside]
        share = distance / (math.log(schedule.sigma(other)) - own)
        return cls(sigma, step, t + share * (other - t), beside, share)

    def exploding(self, trajectory: Trajectory) -> Tensor:
        """x [B, C, H, W] of a trajectory's path at this level, bit for bit where it is one of its own."""
        if self.sigma == trajectory.schedule.sigma(trajectory.schedule.timesteps[self.step]):
            return trajectory.latents[self.step] * math.sqrt(1.0 + self.sigma**2)
        return trajectory.exploding_at(self.sigma)


class BetweenSteps(Mapping[Site, SiteTensors]):
    """Two steps' tensors as one's, blended when asked for; a site that only one of them has is that one's.

    share: of ``beside``, in [0, 1]. Along the content's path hidden states, q and k are smooth functions of the noise
    level, so that the error of a straight line between two steps falls with the square of their distance.
    used: by site, which of its tensors are taken by anyone; the others are left as ``nearest`` has them. None: all.
    """

    def __init__(self, nearest: Held, beside: Held, share: float, used: Used | None = None) -> None:
        self._nearest, self._beside = nearest, beside
        self._share, self._used = share, used
        self._blended: dict[Site, SiteTensors] = {}

    def __getitem__(self, site: Site) -> SiteTensors:
        if site not in self._nearest or site not in self._beside:
            return self._beside[site] if site in self._beside else self._nearest[site]
        if site not in self._blended:
            pairs = zip(self._nearest[site], self._beside[site], strict=True)
            used = None if self._used is None else self._used[site]
            self._blended[site] = tuple(
                self._lerp(a, b) if used is None or i in used else a for i, (a, b) in enumerate(pairs)
            )
        return self._blended[site]

    def _lerp(self, nearest: Tensor, beside: Tensor) -> Tensor:
        wide = torch.promote_types(nearest.dtype, beside.dtype)  # fp16 beside bf16, where one of them exceeds fp16
        return torch.lerp(nearest.to(wide), beside.to(wide), self._share)

    def __contains__(self, site: object) -> bool:
        return site in self._nearest or site in self._beside

    def __iter__(self) -> Iterator[Site]:
        return iter({**self._nearest, **self._beside})

    def __len__(self) -> int:
        return len({**self._nearest, **self._beside})
