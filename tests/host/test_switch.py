"""LoRA Switch Schedule: chaining, words, refusals, and a chart that shows what the core says."""

from __future__ import annotations

import asyncio
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
    with pack.drawing.page.dark_style():
        page = pack.drawing.schedule_chart.schedule_page(schedule)
        pack.drawing.page.render(page)  # which lays it out
    axes, high = page.axes[0], len(chart)
    left = round(axes.transData.transform((step + 0.5, 0.0))[0])
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
        assert strength == pytest.approx(0.0 if entry is None else entry.strength_at(step), abs=0.02), step


def test_gaps_are_grey_and_entries_follow_their_strengths(pack):
    """Read back from what was drawn: the corners of each filled outline."""
    schedule, *_ = chained(pack, turn(0, 300, ramp_out=1), turn(400, 999, strength=-0.5, name="\u58a8" * 80))
    with pack.drawing.page.dark_style():
        page = pack.drawing.schedule_chart.schedule_page(schedule)
    first, second, gap = page.axes[0].collections
    for drawn, entry in ((first, schedule.entries[0]), (second, schedule.entries[1])):
        corners = {tuple(corner) for corner in drawn.get_paths()[0].vertices.tolist()}
        for step in range(entry.start_at_step, entry.end_at_step):
            assert {(step, entry.strength_at(step)), (step + 1, entry.strength_at(step))} <= corners
    assert {x for x, _ in gap.get_paths()[0].vertices.tolist()} == {300, 400}
    assert tuple(gap.get_facecolor()[0][:3]) == pytest.approx(pack.drawing.palette.FAINT)
    words = [text.get_text() for text in page.legends[0].get_texts()]
    assert words == ["0..300   LoRA 1", f"400..999   {'?' * 31}...", "300..400   base model"]


def test_long_runs_and_long_names_have_a_chart(pack):
    schedule, _, chart = chained(pack, turn(0, 300), turn(400, 999, name="\u58a8" * 80))
    assert chart.shape[1] == 720
    assert bar(pack, chart, schedule, 700) == (1, pytest.approx(1.0, abs=0.02))


def test_an_empty_strength_has_a_chart_too(pack):
    schedule, _, chart = chained(pack, turn(0, 3, strength=0.0))
    assert bar(pack, chart, schedule, 1)[1] == pytest.approx(0.0, abs=0.02)


def test_a_style_takes_a_schedule(pack):
    schedule = chained(pack, turn(0, 2), turn(2, 4))[0]
    (chain,), words, _ = rb.run(pack.pipeline.style.StyleNode, lora=schedule, positive=rb.PROMPT, strength=1.0)
    assert chain[0].lora is schedule
    assert "2 LoRAs in turn" in words


def test_every_input_and_output_explains_itself(pack):
    for node in asyncio.run(pack.extension.DiffStylerExtension().get_node_list()):
        explains_itself(node.define_schema())


def explains_itself(schema):
    assert [slot.id for slot in schema.inputs if not slot.tooltip] == []
    assert [slot.id for slot in schema.outputs if not slot.tooltip] == []
    assert schema.description
    page = rb.Path(__file__).parents[2] / "web" / "docs" / f"{schema.node_id}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {schema.display_name}\n")
    assert [slot.id for slot in (*schema.inputs, *schema.outputs) if f"`{slot.id}`" not in text] == []
