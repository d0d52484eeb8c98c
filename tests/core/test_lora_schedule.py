"""The LoRA switch: which LoRA acts at which step (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

import pytest

from diffstyler_core.lora_schedule import LoraEntry, LoraSchedule


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
