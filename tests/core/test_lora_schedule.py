"""The LoRA switch: which LoRA acts at which step (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

import math

import pytest

from diffstyler_core.lora.schedule import LoraEntry, LoraSchedule


def schedule(*windows: tuple[int, int]) -> LoraSchedule:
    return LoraSchedule(tuple(LoraEntry({}, 1.0, a, b, f"style {i}") for i, (a, b) in enumerate(windows)))


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (((0, 4),), "0000.."),
        (((0, 3), (3, 6)), "000111"),
        (((3, 6), (0, 3)), "111000"),
        (((1, 2), (4, 5)), ".0..1."),
        ((), "......"),
        (((0, 1), (1, 2), (2, 3), (3, 6)), "012333"),
    ],
)
def test_entries_take_turns_and_gaps_are_the_base_model(windows, expected):
    switch = schedule(*windows)
    acting = [switch.at(step) for step in range(6)]
    assert "".join("." if entry is None else entry.name[-1] for entry in acting) == expected


@pytest.mark.parametrize("windows", [((0, 4), (3, 6)), ((3, 6), (0, 4)), ((0, 6), (2, 3)), ((1, 2), (1, 2))])
def test_overlaps_name_both_entries(windows):
    with pytest.raises(ValueError, match="overlap") as error:
        schedule(*windows)
    for i, (start, end) in enumerate(windows):
        assert f"'style {i}' at steps {start}..{end}" in str(error.value)


@pytest.mark.parametrize("window", [(-1, 3), (3, 3), (4, 2)])
def test_windows_that_cannot_be_are_refused(window):
    with pytest.raises(ValueError, match=rf"'style 0' at steps {window[0]}\.\.{window[1]}: start_at_step must"):
        schedule(window)


def test_constant_covers_every_step():
    switch = LoraSchedule.constant({}, 0.5, 50, "oil")
    assert {switch.at(step).strength for step in range(50)} == {0.5}
    assert switch.at(50) is None


@pytest.mark.parametrize(("steps", "fits"), [(50, True), (31, True), (30, False), (1, False)])
def test_check_against_the_run(steps, fits):
    switch = schedule((0, 10), (20, 31))
    if fits:
        switch.check(steps)
        return
    with pytest.raises(ValueError, match=rf"reaches beyond the run's {steps} steps: end it at {steps} or earlier"):
        switch.check(steps)


@pytest.mark.parametrize(
    ("window", "ramps", "expected"),
    [
        ((0, 4), (0, 0), [1, 1, 1, 1]),
        ((0, 4), (1, 0), [1 / 2, 1, 1, 1]),
        ((2, 7), (2, 0), [1 / 3, 2 / 3, 1, 1, 1]),
        ((2, 7), (0, 3), [1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ((0, 5), (2, 3), [1 / 3, 2 / 3, 3 / 4, 2 / 4, 1 / 4]),
        ((5, 8), (1, 1), [1 / 2, 1, 1 / 2]),
        ((9, 10), (1, 0), [1 / 2]),
    ],
)
@pytest.mark.parametrize("strength", [1.0, 0.8, -0.5, 0.0])
def test_ramps_in_closed_form(window, ramps, expected, strength):
    entry = LoraEntry({}, strength, *window, "style", *ramps)
    LoraSchedule((entry,))
    assert [entry.strength_at(step) for step in range(*window)] == pytest.approx([strength * part for part in expected])


@pytest.mark.parametrize(
    ("ramps", "words"),
    [
        ((3, 2), ("3 + 2 steps of the 4 it has", "Shorten a ramp")),
        ((5, 0), ("5 + 0 steps of the 4 it has",)),
        ((0, 5), ("0 + 5 steps of the 4 it has",)),
        ((-1, 0), ("must be 0 or more", "got -1 and 0")),
        ((0, -1), ("must be 0 or more", "got 0 and -1")),
    ],
)
def test_ramps_that_the_window_does_not_hold_are_refused(ramps, words):
    with pytest.raises(ValueError, match=r"^'oil' at steps 2\.\.6: ramp_in and ramp_out") as error:
        LoraSchedule((LoraEntry({}, 1.0, 2, 6, "oil", *ramps),))
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_a_strength_that_is_no_number_is_refused(strength):
    with pytest.raises(ValueError, match=rf"'oil' at steps 0\.\.4: its strength must be a number, got {strength}"):
        LoraSchedule((LoraEntry({}, strength, 0, 4, "oil"),))


@pytest.mark.parametrize(
    ("windows", "gaps", "end"),
    [
        ((), [], 0),
        (((0, 4),), [], 4),
        (((2, 4),), [(0, 2)], 4),
        (((0, 3), (3, 6)), [], 6),
        (((7, 9), (1, 2), (3, 6)), [(0, 1), (2, 3), (6, 7)], 9),
    ],
)
def test_gaps_and_end(windows, gaps, end):
    switch = schedule(*windows)
    assert (switch.gaps(), switch.end) == (gaps, end)
    of_the_base = [step for step in range(end) if switch.at(step) is None]
    assert of_the_base == [step for a, b in gaps for step in range(a, b)]
