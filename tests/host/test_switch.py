"""LoRA Switch Schedule: chaining, words, refusals, and a chart that shows what the core says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import regions_bench as rb


def chained(pack, *turns):
    """The last node's (schedule, words, chart) of a chain."""
    previous = {}
    for turn in turns:
        (schedule,), words, chart = rb.switch(pack, **turn, **previous)
        previous = {"previous": schedule}
    return schedule, words, chart


def turn(start, end, **changes):
    return {"start_at_step": start, "end_at_step": end, **changes}


def test_a_chain_of_turns(pack):
    first, second = {"a": 1}, {"b": 2}
    one = chained(pack, turn(0, 30, lora=first, strength=0.5))[0]
    (both,), *_ = rb.switch(
        pack, second, start_at_step=35, end_at_step=50, ramp_in=3, ramp_out=2, name=" ink ", previous=one
    )
    assert len(one.entries) == 1
    assert [tuple(entry) for entry in both.entries] == [
        (first, 0.5, 0, 30, "LoRA 1", 0, 0),
        (second, 1.0, 35, 50, "ink", 3, 2),
    ]
    assert both.entries[0].lora is first


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([turn(0, 30)], "'LoRA 1' at steps 0..30; for runs of 30 steps or more"),
        (
            [turn(30, 50, name="ink"), turn(0, 30)],
            "'LoRA 2' at steps 0..30, 'ink' at steps 30..50; for runs of 50 steps or more",
        ),
        (
            [turn(5, 10), turn(12, 20)],
            "base model at steps 0..5, 'LoRA 1' at steps 5..10, base model at steps 10..12, 'LoRA 2' at steps 12..20; "
            "for runs of 20 steps or more",
        ),
    ],
)
def test_the_words(pack, turns, words):
    assert chained(pack, *turns)[1] == words


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([turn(0, 30, name="oil"), turn(29, 50)], ("'oil' at steps 0..30", "'LoRA 2' at steps 29..50", "overlap")),
        ([turn(5, 5)], ("'LoRA 1' at steps 5..5", "before end_at_step")),
        ([turn(-1, 5)], ("'LoRA 1' at steps -1..5", "0 or more")),
        ([turn(0, 4, ramp_in=3, ramp_out=2)], ("'LoRA 1'", "3 + 2 steps of the 4", "Shorten a ramp")),
        ([turn(0, 4, strength=math.nan, name="x")], ("'x'", "strength must be a number", "nan")),
        ([turn(0, 4, strength=1e30)], ("strength must be a number in -4..4", "1e+30")),
        ([turn(0, 10**9)], ("end_at_step must be a number in 1..999", "1000000000")),
        ([turn(0, 4, name="n" * 201)], ("name may have 200 letters", "got 201")),
        ([turn(0, 4, name="\ud800")], ("name holds half of a letter", "Type it anew")),
    ],
)
def test_refusals(pack, turns, words):
    with rb.refuses(*words):
        chained(pack, *turns)


def bar(pack, chart, schedule, step):
    """(index of the entry, or None; signed height in strength) of a step's bar, measured in the picture's pixels."""
    module, drawing = pack.drawing.schedule_chart, pack.drawing.canvas
    frame = module.frame_of(schedule)
    column = chart[: module.TOP + module.PLOT + 2, round(frame.x(step + 0.4))].astype(int)
    for index in range(len(schedule.entries)):
        found = np.flatnonzero((abs(column - drawing.colour_of(index)) <= 1).all(-1))
        if len(found) > 1:
            strength = (found[-1] - found[0]) * (frame.high - frame.low) / module.PLOT
            return index, strength if found.mean() < frame.y(0) else -strength
    return None, 0.0


@pytest.mark.parametrize(
    "turns",
    [
        [turn(0, 30)],
        [turn(0, 30, ramp_out=8), turn(33, 50, strength=0.8, ramp_in=5)],
        [turn(10, 20, strength=-0.5), turn(0, 7, strength=1.6, ramp_in=2, ramp_out=2)],
        [turn(0, 4, strength=-2.0), turn(4, 5)],
        [turn(i, i + 1, strength=0.5 + 0.1 * i) for i in range(9)],
    ],
)
def test_every_bar_is_the_strength_of_its_step(pack, turns):
    schedule, _, chart = chained(pack, *turns)
    for step in range(schedule.end):
        entry = schedule.at(step)
        index, strength = bar(pack, chart, schedule, step)
        assert index == (None if entry is None else schedule.entries.index(entry)), step
        assert strength == pytest.approx(0.0 if entry is None else entry.strength_at(step), abs=0.04), step


def test_gaps_are_grey_in_the_chart_and_long_runs_have_bars(pack):
    schedule, _, chart = chained(pack, turn(0, 300), turn(400, 999, name="\u58a8" * 80))
    module = pack.drawing.schedule_chart
    frame = module.frame_of(schedule)
    assert chart.shape[1] == 720
    assert tuple(chart[round(frame.y(0)) - 6, round(frame.x(350))]) == pytest.approx(module.BASE, abs=1)
    assert bar(pack, chart, schedule, 700) == (1, pytest.approx(1.0, abs=0.02))


def measured_text(monkeypatch, drawing, text, width):
    """(what fits, how often the text was measured)."""
    draw = drawing.ImageDraw.Draw(drawing.Image.new("RGB", (1, 1)))
    calls, textlength = [], drawing.ImageDraw.ImageDraw.textlength

    def watched(self, text, *args, **kwargs):
        calls.append(text)
        return textlength(self, text, *args, **kwargs)

    monkeypatch.setattr(drawing.ImageDraw.ImageDraw, "textlength", watched)
    found = drawing.fit_text(draw, text, 24.0, width)
    return found, len(calls), textlength(draw, found, drawing.font(24.0))


@pytest.mark.parametrize("letters", [100, 100_000])
def test_a_long_text_is_cut_without_trying_every_letter(pack, monkeypatch, letters):
    found, calls, width = measured_text(monkeypatch, pack.drawing.canvas, "word " * (letters // 5), 300.0)
    assert found.startswith("word word")
    assert found.endswith("...")
    assert 270.0 < width <= 300.0
    assert calls <= 12


@pytest.mark.parametrize(("text", "width", "found"), [("ink", 300.0, "ink"), ("a\nb", 300.0, "a b"), ("ink", 2.0, "")])
def test_a_text_that_fits_is_whole_and_in_one_line(pack, monkeypatch, text, width, found):
    assert measured_text(monkeypatch, pack.drawing.canvas, text, width)[0] == found


def test_an_empty_strength_has_a_chart_too(pack):
    schedule, _, chart = chained(pack, turn(0, 3, strength=0.0))
    assert bar(pack, chart, schedule, 1)[1] == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(("steps", "apart"), [(1, 1), (10, 1), (11, 2), (50, 5), (51, 10), (100, 10), (999, 100)])
def test_marks_of_the_step_axis(pack, steps, apart):
    assert pack.drawing.schedule_chart.tick_step(steps) == apart


def test_a_style_takes_a_schedule(pack):
    schedule = chained(pack, turn(0, 2), turn(2, 4))[0]
    (chain,), words, _ = rb.run(pack.pipeline.style.StyleNode, lora=schedule, positive=rb.PROMPT, strength=1.0)
    assert chain[0].lora is schedule
    assert "2 LoRAs in turn" in words
