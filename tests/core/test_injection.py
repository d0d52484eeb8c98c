"""Injection settings: the papers' numbers, the same shares at any number of steps, and which of the captured layers."""

from __future__ import annotations

import math

import pytest

from diffstyler_core.injection.settings import PRESETS, InjectionSettings
from diffstyler_core.injection.sites import Site

FEATURES = (Site("feature", 4), Site("feature", 7))
ATTENTION = (
    Site("self-attention", 5),
    Site("self-attention", 5, 1),
    Site("self-attention", 9),
    Site("cross-attention", 5),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper 2026", (30, 25, "adaptive", "qk")),
        ("paper 2024", (30, 25, "fixed", "qk")),
        ("keep more content", (40, 40, "adaptive", "qk")),
        ("take more style", (20, 15, "adaptive", "qk")),
    ],
)
def test_presets_at_50_steps(name, expected):
    plan = PRESETS[name].plan(50, FEATURES, ATTENTION)
    assert (plan.feature_steps, plan.attention_steps, plan.mode, plan.blend) == expected
    assert plan.feature_sites == FEATURES
    assert plan.attention_sites == ATTENTION


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 20, 50, 999])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_every_run(name, steps):
    chosen = PRESETS[name]
    plan = chosen.plan(steps, (), ())
    assert abs(plan.feature_steps / steps - chosen.feature_end) <= 0.5001 / steps
    assert abs(plan.attention_steps / steps - chosen.attention_end) <= 0.5001 / steps


def test_more_content_is_more_injection():
    less, middle, more = (PRESETS[n] for n in ("take more style", "paper 2026", "keep more content"))
    assert less.feature_end < middle.feature_end < more.feature_end
    assert less.attention_end < middle.attention_end < more.attention_end


@pytest.mark.parametrize(
    ("changes", "feature", "attention"),
    [
        ({"feature_layers": (7,)}, FEATURES[1:], ATTENTION),
        ({"feature_layers": ()}, (), ATTENTION),
        ({"self_attention_layers": (9,)}, FEATURES, (ATTENTION[2], ATTENTION[3])),
        ({"self_attention_layers": (5,), "cross_attention_layers": ()}, FEATURES, ATTENTION[:2]),
    ],
)
def test_only_the_named_layers_are_injected(changes, feature, attention):
    plan = InjectionSettings(**changes).plan(50, FEATURES, ATTENTION)
    assert plan.feature_sites == feature
    assert plan.attention_sites == attention


def test_layers_that_were_not_captured_are_named():
    with pytest.raises(
        ValueError, match=r"injection: feature layers 5-6 .*not captured \(captured feature layers: 4,7\)"
    ):
        InjectionSettings(feature_layers=(4, 5, 6)).plan(50, FEATURES, ATTENTION)
    with pytest.raises(ValueError, match=r"cross-attention layers 4 .*captured cross-attention layers: none"):
        InjectionSettings(cross_attention_layers=(4,)).plan(50, FEATURES, ATTENTION[:3])


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.01])
@pytest.mark.parametrize("name", ["feature_end", "attention_end"])
def test_a_window_is_a_share_of_the_run(name, value):
    with pytest.raises(ValueError, match=f"{name}_percent must be a share of the run"):
        InjectionSettings(**{name: value})


def test_other_words_are_refused():
    with pytest.raises(ValueError, match=r"attention_mode must be one of .*'soft'"):
        InjectionSettings(mode="soft")
    with pytest.raises(ValueError, match=r"blend must be one of .*'v'"):
        InjectionSettings(blend="v")


def test_its_words_say_what_differs_from_all():
    assert str(PRESETS["paper 2026"]) == "features 60 %, attention 50 % of the run, adaptive, qk"
    narrow = InjectionSettings(0.125, 1.0, "fixed", "map", feature_layers=(), self_attention_layers=(4, 5, 6, 9))
    assert str(narrow) == (
        "features 12.5 %, attention 100 % of the run, fixed, map; feature layers none; self-attention layers 4-6,9"
    )
