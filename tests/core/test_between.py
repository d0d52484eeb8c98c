"""Noise levels between those of a trajectory, and what stands for them."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.trajectory import Trajectory
from diffstyler_core.injection.between import BetweenSteps, Level
from diffstyler_core.injection.sites import Site

A, B, C = Site("feature", 1), Site("self-attention", 2), Site("self-attention", 3)


@pytest.fixture
def schedule():
    abar = torch.linspace(0.9991, 0.0047, 1000, dtype=torch.float64)
    return NoiseSchedule.leading(abar.tolist(), "eps", 4)  # timesteps 751, 501, 251, 1


@pytest.mark.parametrize("exactly", [True, False])
@pytest.mark.parametrize("step", range(4))
def test_a_level_of_the_trajectory_is_its_step(schedule, step, exactly):
    t = schedule.timesteps[step]
    told = float(torch.tensor(schedule.sigma(t), dtype=torch.float32))  # as a sampler hands it over
    level = Level.of(schedule, told, exactly)
    assert level == Level(schedule.sigma(t), step, t)


@pytest.mark.parametrize(("share", "step", "beside"), [(0.25, 1, 2), (0.75, 2, 1)])
def test_a_level_between_two_steps(schedule, share, step, beside):
    high, low = schedule.sigma(501), schedule.sigma(251)
    sigma = high ** (1 - share) * low**share
    level = Level.of(schedule, sigma, exactly=True)
    assert (level.sigma, level.step, level.beside) == (sigma, step, beside)
    assert level.share == pytest.approx(0.25)
    assert level.t == pytest.approx(501 - 250 * share)
    nearest = Level.of(schedule, sigma, exactly=False)
    assert nearest == Level(schedule.sigma(schedule.timesteps[step]), step, schedule.timesteps[step])


@pytest.mark.parametrize(("factor", "step"), [(1.7, 0), (0.3, 3)])
def test_a_level_outside_of_all_has_no_neighbour(schedule, factor, step):
    t = schedule.timesteps[step]
    level = Level.of(schedule, schedule.sigma(t) * factor, exactly=True)
    assert level == Level(schedule.sigma(t) * factor, step, t)


def test_the_path_at_a_level(schedule):
    latents = tuple(torch.randn(1, 4, 2, 2) for _ in range(5))
    trajectory = Trajectory(latents, schedule)
    own = Level.of(schedule, schedule.sigma(501), exactly=True)
    assert torch.equal(own.exploding(trajectory), latents[1] * math.sqrt(1 + schedule.sigma(501) ** 2))
    sigma = (schedule.sigma(501) + schedule.sigma(251)) / 2
    halfway = Level.of(schedule, sigma, exactly=True).exploding(trajectory)
    ends = [z * math.sqrt(1 + schedule.sigma(t) ** 2) for z, t in zip(latents[1:3], (501, 251), strict=True)]
    torch.testing.assert_close(halfway, (ends[0] + ends[1]) / 2)


def test_tensors_between_two_steps():
    near, far = ({site: tuple(torch.randn(1, 3, 2) for _ in range(n)) for site, n in ((A, 1), (B, 2))} for _ in "ab")
    far[C] = (torch.ones(1, 3, 2),)
    both = BetweenSteps(near, far, 0.25)
    assert set(both) == {A, B, C}
    assert len(both) == 3
    for site in (A, B):
        for got, a, b in zip(both[site], near[site], far[site], strict=True):
            torch.testing.assert_close(got, 0.75 * a + 0.25 * b)
    assert both[C] is far[C], "what only one step has is that one's"
    assert both[A] is both[A], "blended once"
    assert C not in near
    with pytest.raises(KeyError):
        both[Site("feature", 9)]


def test_beyond_fp16_beside_fp16_stays_finite():
    """A step whose tensors exceed fp16 is kept in bf16."""
    near, far = {A: (torch.tensor([60000.0]).half(),)}, {A: (torch.tensor([80000.0]).bfloat16(),)}
    (blended,) = BetweenSteps(near, far, 0.5)[A]
    assert blended.dtype == torch.float32
    assert blended.item() == pytest.approx(70000.0, rel=0.01)
