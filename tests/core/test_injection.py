"""Injection settings: the papers' numbers, the same shares at any number of steps, and which of the captured layers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from diffstyler_core.injection.settings import CUSTOM, PRESETS, InjectionSettings, in_steps, preset
from diffstyler_core.injection.sites import Site

SCRIPT = Path(__file__).parents[2] / "web" / "diffstyler_preset.js"
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
    plan = preset(name).plan(50, FEATURES, ATTENTION)
    assert (plan.feature_steps, plan.attention_steps, plan.mode, plan.blend) == expected
    assert plan.feature_sites == FEATURES
    assert plan.attention_sites == ATTENTION


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 20, 50, 999])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_every_run(name, steps):
    chosen = preset(name)
    plan = chosen.plan(steps, (), ())
    assert abs(plan.feature_steps / steps - chosen.feature_end) <= 0.5001 / steps
    assert abs(plan.attention_steps / steps - chosen.attention_end) <= 0.5001 / steps


def test_more_content_is_more_injection():
    less, middle, more = (PRESETS[n] for n in ("take more style", "paper 2026", "keep more content"))
    assert less.feature_end < middle.feature_end < more.feature_end
    assert less.attention_end < middle.attention_end < more.attention_end


@pytest.mark.parametrize("name", ["paper 2025", "", CUSTOM])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"preset must be one of .*paper 2026"):
        preset(name)


def test_the_page_fills_what_the_node_uses():
    table = re.search(r"const PRESETS = ({.*?});", SCRIPT.read_text(encoding="utf-8"), re.S)[1]
    shown = json.loads(re.sub(r",\s*([}\]])", r"\1", table))
    assert shown == {name: [p.feature_end, p.attention_end, p.mode, p.blend] for name, p in PRESETS.items()}


def test_numbers_of_steps_come_back_as_they_were_typed():
    for steps in (1, 3, 7, 30, 50, 333, 999):
        for typed in {0, 1, steps // 3, steps - 1, steps}:
            plan = in_steps(typed, steps - typed, "fixed", "map", steps).plan(steps, (), ())
            assert (plan.feature_steps, plan.attention_steps) == (typed, steps - typed)


@pytest.mark.parametrize(
    ("typed", "words"), [((51, 0), "feature_steps .*0..50.*got 51"), ((0, -1), "attention_steps .*got -1")]
)
def test_windows_beyond_the_run_are_refused(typed, words):
    with pytest.raises(ValueError, match=words):
        in_steps(*typed, "adaptive", "qk", 50)


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
