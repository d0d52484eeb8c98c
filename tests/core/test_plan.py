"""What is injected when: DiffStyler 2026, eqs. 4-6, in numbers."""

from __future__ import annotations

import pytest

from diffstyler_core.diffusion.schedule import leading_timesteps
from diffstyler_core.injection.plan import InjectionPlan
from diffstyler_core.injection.sites import Site

TIMESTEPS = leading_timesteps(50)
FEATURE, ATTENTION = Site("feature", 4), Site("self-attention", 4)


def kappas(attention_steps: int, mode: str = "adaptive", steps: int = 50) -> list[float]:
    plan = InjectionPlan(steps, 0, attention_steps, mode=mode)
    return [plan.kappa(step, t) for step, t in enumerate(leading_timesteps(steps))]


def test_default_is_the_authors_content_rate():
    """25 of 50: T_a = 500, and the content's share is min(1, 2t / 1000)."""
    assert InjectionPlan(50, 30, 25).threshold == 500
    for t, kappa in zip(TIMESTEPS, kappas(25), strict=True):
        assert 1.0 - kappa == pytest.approx(min(1.0, 2 * t / 1000), abs=1e-12)
    assert kappas(25)[:25] == [0.0] * 25
    assert kappas(25)[25] == pytest.approx(1 - 481 / 500)
    assert kappas(25)[-1] == pytest.approx(1 - 1 / 500)


@pytest.mark.parametrize(
    ("attention_steps", "threshold", "largest"),
    [
        (30, 400, (400 - 1) / 600),
        (25, 500, (500 - 1) / 500),
        (20, 600, 1.0),
        (40, 200, (200 - 1) / 800),
        (50, 0, 0.0),
    ],
)
def test_threshold_and_largest_kappa(attention_steps, threshold, largest):
    assert InjectionPlan(50, 0, attention_steps).threshold == pytest.approx(threshold)
    assert max(kappas(attention_steps)) == pytest.approx(largest)


def test_30_of_50_stays_below_two_thirds():
    assert 0.66 < max(kappas(30)) < 2 / 3


@pytest.mark.parametrize(
    ("mode", "attention_steps", "expected"),
    [
        ("adaptive", 50, [0.0] * 50),
        ("fixed", 50, [0.0] * 50),
        ("adaptive", 0, [1.0] * 50),
        ("fixed", 0, [1.0] * 50),
        ("fixed", 25, [0.0] * 25 + [1.0] * 25),
        ("fixed", 1, [0.0] + [1.0] * 49),
    ],
)
def test_kappa_of_whole_runs(mode, attention_steps, expected):
    assert kappas(attention_steps, mode) == expected


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 50])
def test_adaptive_overrides_at_least_its_window_then_rises(steps):
    for attention_steps in range(1, steps + 1):
        rates = kappas(attention_steps, steps=steps)
        assert rates == sorted(rates)
        assert rates[:attention_steps] == [0.0] * attention_steps
        assert all(0.0 <= rate <= 1.0 for rate in rates)


@pytest.mark.parametrize(
    ("step", "mode", "feature_steps", "attention_steps", "expected"),
    [
        (0, "adaptive", 30, 25, {FEATURE, ATTENTION}),
        (29, "adaptive", 30, 25, {FEATURE, ATTENTION}),
        (30, "adaptive", 30, 25, {ATTENTION}),
        (49, "adaptive", 30, 25, {ATTENTION}),
        (25, "fixed", 30, 25, {FEATURE}),
        (30, "fixed", 30, 25, set()),
        (0, "adaptive", 0, 0, set()),
        (0, "fixed", 1, 0, {FEATURE}),
        (0, "adaptive", 0, 1, {ATTENTION}),
    ],
)
def test_sites_at(step, mode, feature_steps, attention_steps, expected):
    plan = InjectionPlan(50, feature_steps, attention_steps, (FEATURE,), (ATTENTION,), mode)
    assert plan.sites_at(step, TIMESTEPS[step]) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "at least one step, got 0"),
        ({"feature_steps": 51}, r"feature_steps must lie in 0\.\.50 .*got 51"),
        ({"feature_steps": -1}, r"feature_steps must lie in 0\.\.50 .*got -1"),
        ({"attention_steps": 51}, r"attention_steps must lie in 0\.\.50 .*got 51.*invert with more steps"),
        ({"attention_steps": -3}, r"attention_steps must lie in 0\.\.50 .*got -3"),
        ({"mode": "soft"}, "mode must be one of .*got 'soft'"),
        ({"blend": "v"}, "blend must be one of .*got 'v'"),
    ],
)
def test_plan_refuses(changes, message):
    settings = {"steps": 50, "feature_steps": 30, "attention_steps": 25, **changes}
    with pytest.raises(ValueError, match=message):
        InjectionPlan(**settings)
