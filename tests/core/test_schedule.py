"""Timesteps and noise levels against numbers known in closed form."""

from __future__ import annotations

import math

import pytest

from diffstyler_core.diffusion.schedule import NoiseSchedule, leading_timesteps, spacing_note


def stable_diffusion() -> tuple[float, ...]:
    """Cumulative alphas of Stable Diffusion: scaled linear betas from 0.00085 to 0.012."""
    low, high = 0.00085**0.5, 0.012**0.5
    table, product = [], 1.0
    for i in range(1000):
        product *= 1.0 - (low + (high - low) * i / 999) ** 2
        table.append(product)
    return tuple(table)


ABAR = stable_diffusion()


@pytest.mark.parametrize(
    ("steps", "first", "last", "ratio"),
    [(50, 981, 1, 20), (10, 901, 1, 100), (1, 1, 1, 1000), (3, 667, 1, 333), (999, 999, 1, 1), (30, 958, 1, 33)],
)
def test_leading_timesteps(steps, first, last, ratio):
    timesteps = leading_timesteps(steps)
    assert len(timesteps) == steps
    assert (timesteps[0], timesteps[-1]) == (first, last)
    assert all(a - b == ratio for a, b in zip(timesteps, timesteps[1:], strict=False))


@pytest.mark.parametrize("steps", [0, -1, 1000, 5000])
def test_leading_timesteps_refuses(steps):
    with pytest.raises(ValueError, match=rf"steps must lie in 1\.\.999, got {steps}"):
        leading_timesteps(steps)


@pytest.mark.parametrize("steps", range(1, 1000, 7))
def test_every_number_of_steps_fits_the_table(steps):
    schedule = NoiseSchedule.leading(ABAR, "eps", steps)
    assert schedule.steps == steps
    assert 0 < schedule.timesteps[-1] <= schedule.timesteps[0] <= 999


def test_the_picture_is_at_abar_0():
    schedule = NoiseSchedule.leading(ABAR, "eps", 50)
    assert schedule.level_abar(50) == ABAR[0] == pytest.approx(1 - 0.00085)
    assert schedule.level_abar(0) == ABAR[981]
    assert schedule.level_abar(49) == ABAR[1]


def test_sigma_is_the_noise_to_signal_ratio():
    schedule = NoiseSchedule((1.0, 0.8, 0.5, 0.2), "eps", (3, 2, 1))
    assert [schedule.sigma(t) for t in (0, 1, 2, 3)] == pytest.approx([0.0, 0.5, 1.0, 2.0])


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 999])
def test_leading_ascent_undoes_the_descent(steps):
    """Evaluation i goes from the level that sampling's step arrives at to the level that it starts from."""
    schedule = NoiseSchedule.leading(ABAR, "eps", steps)
    ascent = schedule.ascent()
    assert len(ascent) == steps
    for t, start, level in ascent:
        assert t == schedule.timesteps[level]
        assert start == schedule.level_abar(level + 1)
    assert [level for *_, level in ascent] == list(range(steps - 1, -1, -1))


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_forward_1000_visits_every_timestep_and_marks_the_samplers_levels(steps):
    schedule = NoiseSchedule.leading(ABAR, "eps", steps, "forward 1000")
    ascent = schedule.ascent()
    assert [t for t, *_ in ascent] == list(range(1, schedule.timesteps[0] + 1))
    assert all(start == ABAR[t - 1] for t, start, _ in ascent)
    marked = {level: t for t, _, level in ascent if level is not None}
    assert marked == dict(enumerate(schedule.timesteps))


@pytest.mark.parametrize("steps", [1, 7, 50, 300])
def test_step_at_finds_each_of_its_own_levels(steps):
    schedule = NoiseSchedule.leading(ABAR, "eps", steps)
    for step, t in enumerate(schedule.timesteps):
        assert schedule.step_at(schedule.sigma(t)) == step
        assert schedule.step_at(float(f"{schedule.sigma(t):.5g}")) == step  # what fp32 and fp16 leave of it


@pytest.mark.parametrize(("sigma", "step"), [(1e9, 0), (0.0, 49), (1e-12, 49), (-1.0, 49)])
def test_step_at_outside_the_levels(sigma, step):
    assert NoiseSchedule.leading(ABAR, "eps", 50).step_at(sigma) == step


def test_step_at_between_two_levels_is_the_nearer_in_log_sigma():
    schedule = NoiseSchedule.leading(ABAR, "eps", 50)
    upper, lower = schedule.sigma(501), schedule.sigma(481)
    middle = math.sqrt(upper * lower)
    assert schedule.timesteps[schedule.step_at(middle * 1.001)] == 501
    assert schedule.timesteps[schedule.step_at(middle / 1.001)] == 481


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "x0"}, "prediction must be one of .*got 'x0'"),
        ({"spacing": "trailing"}, "spacing must be one of .*got 'trailing'"),
        ({"timesteps": ()}, "at least one timestep, got none"),
        ({"timesteps": (1, 2)}, r"timesteps must decrease .*got \(1, 2\)"),
        ({"timesteps": (2, 2)}, r"timesteps must decrease .*got \(2, 2\)"),
        ({"timesteps": (4, 1)}, r"in the table 0\.\.3, got 4\.\.1"),
        ({"timesteps": (2, -1)}, r"in the table 0\.\.3, got 2\.\.-1"),
        ({"abar": (1.0, 0.5, 0.2, 0.0)}, r"must lie in \(0, 1\]"),
        ({"abar": (1.1, 0.5, 0.2, 0.1)}, r"must lie in \(0, 1\]"),
        ({"abar": (1.0, 0.5, 0.2, float("nan"))}, r"must lie in \(0, 1\]"),
    ],
)
def test_schedule_refuses(changes, message):
    settings = {"abar": (1.0, 0.8, 0.5, 0.2), "prediction": "eps", "timesteps": (3, 2, 1), **changes}
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(**settings)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (501, ("501 steps begin at t = 501 of 999", "52 % of the picture", "500 steps")),
        (400, ("400 steps begin at t = 799 of 999", "426 steps")),
        (700, ("700 steps begin at t = 700 of 999",)),
        (1, ("1 steps begin at t = 1 of 999", "100 % of the picture", "7 steps")),
    ],
)
def test_a_run_that_begins_far_from_noise_says_so(steps, words):
    note = spacing_note(NoiseSchedule.leading(ABAR, "eps", steps))
    assert [word for word in words if word not in note] == []


@pytest.mark.parametrize("steps", [7, 8, 10, 20, 25, 30, 50, 100, 250, 333, 500, 900, 998, 999])
def test_a_run_that_begins_near_noise_says_nothing(steps):
    assert spacing_note(NoiseSchedule.leading(ABAR, "eps", steps)) == ""
