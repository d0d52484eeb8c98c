"""Presets: the papers' numbers at 50 steps, and the same shares at any other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from diffstyler_core.plan import InjectionPlan
from diffstyler_core.presets import CUSTOM, PRESETS, windows

SCRIPT = Path(__file__).parents[2] / "web" / "diffstyler_preset.js"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper 2026", (30, 25, "adaptive", "qk")),
        ("paper 2024", (30, 25, "fixed", "qk")),
        ("keep more content", (40, 40, "adaptive", "qk")),
        ("take more style", (20, 15, "adaptive", "qk")),
    ],
)
def test_at_50_steps(name, expected):
    assert windows(name, 50) == expected


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 20, 50, 999])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_every_run(name, steps):
    chosen = windows(name, steps)
    plan = InjectionPlan(steps, chosen.feature_steps, chosen.attention_steps, mode=chosen.attention_mode)
    assert abs(plan.feature_steps / steps - PRESETS[name].feature) <= 0.5001 / steps
    assert abs(plan.attention_steps / steps - PRESETS[name].attention) <= 0.5001 / steps


def test_more_content_is_more_injection():
    less, middle, more = (PRESETS[n] for n in ("take more style", "paper 2026", "keep more content"))
    assert less.feature < middle.feature < more.feature
    assert less.attention < middle.attention < more.attention


@pytest.mark.parametrize("name", ["paper 2025", "", CUSTOM])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"preset must be one of .*paper 2026"):
        windows(name, 50)


def test_the_page_fills_what_the_node_uses():
    table = re.search(r"const PRESETS = ({.*?});", SCRIPT.read_text(encoding="utf-8"), re.S)[1]
    shown = json.loads(re.sub(r",\s*([}\]])", r"\1", table))
    assert shown == {name: list(preset) for name, preset in PRESETS.items()}
