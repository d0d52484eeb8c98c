"""The content's path between its levels."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.trajectory import Trajectory

ABAR = tuple(math.cos(0.5 * math.pi * (t + 1) / 1001) ** 2 for t in range(1000))
SCHEDULE = NoiseSchedule.leading(ABAR, "eps", 4)
PATH = Trajectory(tuple(torch.randn(1, 4, 3, 2) for _ in range(5)), SCHEDULE)
SIGMAS = [SCHEDULE.sigma(t) for t in SCHEDULE.timesteps] + [SCHEDULE.sigma(0)]


@pytest.mark.parametrize("level", range(5))
def test_at_a_level_it_is_the_levels_latent(level):
    x, sigma = PATH.exploding_at(SIGMAS[level]), SIGMAS[level]
    torch.testing.assert_close(x, PATH.latents[level] * math.sqrt(1 + sigma**2))


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_between_levels_it_is_ddims_straight_line(level, share):
    """DDIM in x: x' = x + (sigma' - sigma) eps, so a partial step lies on the line between two levels."""
    a, b = (PATH.exploding_at(SIGMAS[i]) for i in (level, level + 1))
    sigma = SIGMAS[level] + share * (SIGMAS[level + 1] - SIGMAS[level])
    eps = (b - a) / (SIGMAS[level + 1] - SIGMAS[level])
    torch.testing.assert_close(PATH.exploding_at(sigma), a + (sigma - SIGMAS[level]) * eps, rtol=1e-4, atol=1e-4)


def test_at_no_noise_it_is_the_content_and_above_the_noisiest_level_its_latent():
    assert torch.equal(PATH.exploding_at(0.0), PATH.content)
    x = PATH.exploding_at(2 * SIGMAS[0])
    torch.testing.assert_close(x, PATH.noise * math.sqrt(1 + 4 * SIGMAS[0] ** 2))
