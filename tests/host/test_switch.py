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
    return {"start_percent": start, "end_percent": end, **changes}


def test_a_chain_of_turns(pack):
    first, second = {"a": 1}, {"b": 2}
    one = chained(pack, turn(0, 0.6, lora=first, strength=0.5))[0]
    later = turn(0.7, 1, ramp_in_percent=0.1, ramp_out_percent=0.05, name=" ink ", previous=one)
    (both,), *_ = rb.switch(pack, second, **later)
    assert len(one.entries) == 1
    assert [tuple(entry) for entry in both.entries] == [
        (first, 0.5, 0, 0.6, "LoRA 1", 0, 0),
        (second, 1.0, 0.7, 1, "ink", 0.1, 0.05),
    ]
    assert both.entries[0].lora is first


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([turn(0, 0.6)], "'LoRA 1' 0 to 60 %, base model 60 to 100 % of the run"),
        ([turn(0.6, 1, name="ink"), turn(0, 0.6)], "'LoRA 2' 0 to 60 %, 'ink' 60 to 100 % of the run"),
        (
            [turn(0.1, 0.2), turn(0.25, 1)],
            "base model 0 to 10 %, 'LoRA 1' 10 to 20 %, base model 20 to 25 %, 'LoRA 2' 25 to 100 % of the run",
        ),
    ],
)
def test_the_words(pack, turns, words):
    assert chained(pack, *turns)[1] == words


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([turn(0, 0.6, name="oil"), turn(0.59, 1)], ("'oil' 0 to 60 %", "'LoRA 2' 59 to 100 %", "overlap")),
        ([turn(0.1, 0.1)], ("'LoRA 1' 10 to 10 %", "before end_percent")),
        ([turn(-0.1, 0.5)], ("'LoRA 1': start_percent", "0..1", "got -0.1")),
        ([turn(0, 0.4, ramp_in_percent=0.3, ramp_out_percent=0.2)], ("'LoRA 1'", "30 % and 20 %", "Shorten a ramp")),
        ([turn(0, 1, strength=math.nan, name="x")], ("strength must be a number", "nan")),
        ([turn(0, 1, strength=1e30)], ("strength must be a number in -4..4", "1e+30")),
        ([turn(0, 30)], ("end_percent must be a share of the run in 0..1", "got 30")),
        ([turn(0, 1, name="n" * 201)], ("name may have 200 letters", "got 201")),
        ([turn(0, 1, name="\ud800")], ("name holds half of a letter", "Type it anew")),
    ],
)
def test_refusals(pack, turns, words):
    with rb.refuses(*words):
        chained(pack, *turns)


def axes_of(pack, schedule):
    """The chart's axes, laid out."""
    with pack.drawing.page.dark_style():
        page = pack.drawing.schedule_chart.schedule_page(schedule)
        pack.drawing.page.render(page)
    return page.axes[0]


def bar(pack, axes, chart, schedule, share):
    """(index of the entry, or None; signed strength) at a share of the run, measured in the picture's pixels."""
    high = len(chart)
    left = round(axes.transData.transform((share, 0.0))[0])
    column = chart[: round(high - axes.bbox.y0), left].astype(int)
    for index in range(len(schedule.entries)):
        found = np.flatnonzero((abs(column - 255 * np.array(pack.drawing.palette.colour_of(index))) <= 2).all(-1))
        if len(found) > 2:
            ends = [axes.transData.inverted().transform((left, high - row))[1] for row in (found[0], found[-1] + 1)]
            return index, max(ends, key=abs)
    return None, 0.0


@pytest.mark.parametrize(
    "turns",
    [
        [turn(0, 0.6)],
        [turn(0, 0.6, ramp_out_percent=0.16), turn(0.66, 1, strength=0.8, ramp_in_percent=0.1)],
        [turn(0.5, 1, strength=-0.5), turn(0, 0.35, strength=1.6, ramp_in_percent=0.1, ramp_out_percent=0.1)],
        [turn(0, 0.8, strength=-2.0), turn(0.8, 1)],
        [turn(i / 10, (i + 1) / 10, strength=0.5 + 0.1 * i) for i in range(9)],
    ],
)
def test_the_chart_shows_every_strength(pack, turns):
    schedule, _, chart = chained(pack, *turns)
    axes = axes_of(pack, schedule)
    for step in range(1, 100, 4):  # not where windows meet
        entry = schedule.at(10 * step + 5, 1000)
        index, strength = bar(pack, axes, chart, schedule, step / 100 + 0.005)
        expected = 0.0 if entry is None else entry.strength_at(10 * step + 5, 1000)
        assert strength == pytest.approx(expected, abs=0.03), step
        if abs(expected) > 0.05:  # a sliver has no pixels
            assert index == schedule.entries.index(entry), step


def test_gaps_are_grey_and_entries_follow_their_strengths(pack):
    """Read back from what was drawn: the corners of each filled outline, and the legend."""
    later = turn(0.4, 1, strength=-0.5, name="\u58a8" * 80)
    schedule, _, chart = chained(pack, turn(0, 0.3, ramp_out_percent=0.1), later)
    with pack.drawing.page.dark_style():
        page = pack.drawing.schedule_chart.schedule_page(schedule)
    first, second, gap = ({tuple(c) for c in drawn.get_paths()[0].vertices} for drawn in page.axes[0].collections)
    assert {(0, 1), (0.3 - 0.1, 1), (0.3, 0)} <= first
    assert {(0.4, -0.5), (1, -0.5)} <= second
    assert {x for x, _ in gap} == {0.3, 0.4}
    grey = page.axes[0].collections[2].get_facecolor()[0][:3]
    assert tuple(grey) == pytest.approx(pack.drawing.palette.FAINT)
    words = [text.get_text() for text in page.legends[0].get_texts()]
    assert words == ["0 to 30 %   LoRA 1", f"40 to 100 %   {'?' * 27}...", "30 to 40 %   base model"]
    assert chart.shape[1] == 720


def test_an_empty_strength_has_a_chart_too(pack):
    schedule, _, chart = chained(pack, turn(0, 1, strength=0.0))
    assert bar(pack, axes_of(pack, schedule), chart, schedule, 0.1)[1] == pytest.approx(0.0, abs=0.02)


def test_a_style_takes_a_schedule(pack):
    schedule = chained(pack, turn(0, 0.5), turn(0.5, 1))[0]
    (chain,), words, _ = rb.run(pack.pipeline.style.StyleNode, lora=schedule, positive=rb.PROMPT, strength=1.0)
    assert chain[0].lora is schedule
    assert "2 LoRAs in turn" in words
