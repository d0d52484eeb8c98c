"""The LoRA switch: which LoRA acts at which step (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

import math

import pytest

from diffstyler_core.lora.schedule import LoraEntry, LoraSchedule


def schedule(*windows: tuple[float, float]) -> LoraSchedule:
    return LoraSchedule(tuple(LoraEntry({}, 1.0, a, b, f"style {i}") for i, (a, b) in enumerate(windows)))


def acting(switch: LoraSchedule, steps: int) -> str:
    """The number of the entry at each step, a dot for the base model."""
    return "".join("." if (entry := switch.at(step, steps)) is None else entry.name[-1] for step in range(steps))


@pytest.mark.parametrize(
    ("windows", "steps", "expected"),
    [
        (((0, 0.6),), 10, "000000...."),
        (((0, 0.6), (0.6, 1)), 10, "0000001111"),
        (((0, 0.6), (0.6, 1)), 5, "00011"),
        (((0, 0.6), (0.6, 1)), 1, "0"),
        (((0.5, 1), (0, 0.5)), 6, "111000"),
        (((0.5, 1), (0, 0.5)), 5, "11000"),  # 2.5 steps: halves to the even one
        (((0.1, 0.3), (0.6, 0.7)), 10, ".00...1..."),
        ((), 6, "......"),
        (((0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 1)), 10, "0123333333"),
    ],
)
def test_entries_take_turns_and_gaps_are_the_base_model(windows, steps, expected):
    assert acting(schedule(*windows), steps) == expected


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 50, 51, 333, 999])
@pytest.mark.parametrize("cut", [0.001, 0.125, 0.333, 0.5, 0.6, 0.999])
def test_no_step_is_lost_or_taken_twice_where_one_ends_and_the_next_starts(cut, steps):
    switch = schedule((0, cut), (cut, 1))
    first, second = (entry.window(steps) for entry in switch.entries)
    assert [*first, *second] == list(range(steps))
    assert abs(len(first) - cut * steps) <= 0.5


@pytest.mark.parametrize(
    "windows", [((0, 0.4), (0.3, 0.6)), ((0.3, 0.6), (0, 0.4)), ((0, 0.6), (0.2, 0.3)), ((0.1, 0.2),) * 2]
)
def test_overlaps_name_both_entries(windows):
    with pytest.raises(ValueError, match="overlap") as error:
        schedule(*windows)
    for i, (start, end) in enumerate(windows):
        assert f"'style {i}' {100 * start:.4g} to {100 * end:.4g} %" in str(error.value)


@pytest.mark.parametrize("window", [(0.3, 0.3), (0.4, 0.2)])
def test_windows_without_anything_between_are_refused(window):
    with pytest.raises(ValueError, match=r"'style 0' \d+ to \d+ %: start_percent must lie before end_percent"):
        schedule(window)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["start", "end", "ramp_in", "ramp_out"])
def test_what_is_no_share_of_the_run_is_refused(name, value):
    with pytest.raises(ValueError, match=f"'oil': {name}_percent must be a share of the run in 0..1.*got {value}"):
        LoraSchedule((LoraEntry({}, 1.0, name="oil")._replace(**{name: value}),))


def test_constant_covers_every_step():
    switch = LoraSchedule.constant({}, "oil")
    assert {switch.at(step, 50).strength for step in range(50)} == {1.0}
    assert switch.at(50, 50) is None
    assert switch.gaps() == []


@pytest.mark.parametrize(
    ("window", "ramps", "expected"),
    [
        ((0, 0.4), (0, 0), [1, 1, 1, 1]),
        ((0, 0.4), (0.1, 0), [1 / 2, 1, 1, 1]),
        ((0.2, 0.7), (0.2, 0), [1 / 3, 2 / 3, 1, 1, 1]),
        ((0.2, 0.7), (0, 0.3), [1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ((0, 0.5), (0.2, 0.3), [1 / 3, 2 / 3, 3 / 4, 2 / 4, 1 / 4]),
        ((0.5, 0.8), (0.1, 0.1), [1 / 2, 1, 1 / 2]),
        ((0.9, 1), (0.1, 0), [1 / 2]),
    ],
)
@pytest.mark.parametrize("strength", [1.0, 0.8, -0.5, 0.0])
def test_ramps_in_closed_form(window, ramps, expected, strength):
    (entry,) = LoraSchedule((LoraEntry({}, strength, *window, "style", *ramps),)).entries
    assert [entry.strength_at(s, 10) for s in entry.window(10)] == pytest.approx([strength * part for part in expected])


@pytest.mark.parametrize("ramps", [(0.3, 0.2), (0.5, 0), (0, 0.5)])
def test_ramps_that_the_window_does_not_hold_are_refused(ramps):
    words = f"take {100 * ramps[0]:.4g} % and {100 * ramps[1]:.4g} % of the run, and its window has 40 %. Shorten"
    with pytest.raises(ValueError, match=rf"^'oil' 20 to 60 %: ramp_in_percent and ramp_out_percent {words}"):
        LoraSchedule((LoraEntry({}, 1.0, 0.2, 0.6, "oil", *ramps),))


def test_ramps_may_fill_the_window():
    (entry,) = LoraSchedule((LoraEntry({}, 1.0, 0.1, 0.4, "oil", 0.1, 0.2),)).entries
    assert [entry.strength_at(s, 10) for s in entry.window(10)] == pytest.approx([1 / 2, 2 / 3, 1 / 3])


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_a_strength_that_is_no_number_is_refused(strength):
    with pytest.raises(ValueError, match=rf"'oil' 0 to 100 %: its strength must be a number, got {strength}"):
        LoraSchedule((LoraEntry({}, strength, name="oil"),))


@pytest.mark.parametrize(
    ("windows", "gaps"),
    [
        ((), [(0, 1)]),
        (((0, 0.4),), [(0.4, 1)]),
        (((0.2, 0.4),), [(0, 0.2), (0.4, 1)]),
        (((0, 0.3), (0.3, 1)), []),
        (((0.7, 0.9), (0.1, 0.2), (0.3, 0.6)), [(0, 0.1), (0.2, 0.3), (0.6, 0.7), (0.9, 1)]),
    ],
)
def test_gaps_are_where_nothing_acts(windows, gaps):
    switch = schedule(*windows)
    assert switch.gaps() == gaps
    of_the_base = [step for step in range(10) if switch.at(step, 10) is None]
    assert of_the_base == [step for a, b in gaps for step in range(round(10 * a), round(10 * b))]


def test_what_is_too_narrow_for_a_step_is_told():
    switch = schedule((0, 0.6), (0.6, 0.62))
    assert switch.idle(50) == ()
    assert [entry.name for entry in switch.idle(10)] == ["style 1"]
