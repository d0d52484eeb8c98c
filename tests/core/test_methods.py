"""The comparison of methods: its prompt holds every result, and its tables the right means."""

from __future__ import annotations

import random

import pytest

from tools import compare_methods, methods_prompt, methods_tables
from tools.results import METRICS
from tools.results_prompt import CONTENTS, STYLES


def test_every_wire_of_the_prompt_leads_to_a_node():
    api = methods_prompt.content_prompt(CONTENTS[0])
    wires = [v for node in api.values() for v in node["inputs"].values() if isinstance(v, list)]
    assert {source for source, _ in wires} <= set(api)


def test_the_nodes_that_are_timed_are_in_the_prompt():
    api = methods_prompt.content_prompt(CONTENTS[0])
    for style, method, title in methods_prompt.results_of():
        trainer = methods_prompt.trained_by(style, method)
        timed = {f"{title} - latent", *methods_prompt.prepared_by(style, method), *filter(None, [trainer])}
        assert timed <= set(api)


def made_up(rng):
    csv = "result,metric,better,against,region,value,not_available\n"
    texts, seconds = {}, {}
    for style, method, title in methods_prompt.results_of():
        lines = [
            f"1,{m},higher,content,{region},{rng.random():.6f},\n" for m in METRICS for region in ("whole", "mask")
        ]
        texts[f"{title} - csv"] = csv + "".join(lines)
        seconds[f"{title} - latent"] = 10 * rng.random() + 1
        if trainer := methods_prompt.trained_by(style, method):
            seconds[trainer] = 100 * rng.random() + 20
    return {"texts": texts, "node_seconds": seconds, "seconds": 1.0}


def test_means_are_over_all_pairs(tmp_path):
    rng = random.Random()
    runs = {content: made_up(rng) for content in CONTENTS}
    rows = [row for content, run in runs.items() for row in compare_methods.rows_of(content, run)]
    assert len(rows) == len(CONTENTS) * len(STYLES) * len(methods_prompt.METHODS)
    for method, line in zip(methods_prompt.METHODS, methods_tables.means(rows)[2:], strict=True):
        values = []
        for run in runs.values():
            for title in (f"{style.name}, {method}" for style in STYLES):
                lines = [row.split(",") for row in run["texts"][f"{title} - csv"].splitlines()]
                values += [float(row[5]) for row in lines if row[1] == "edges" and row[4] == "whole"]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == method
        assert float(cells[1].split(" ")[0]) == pytest.approx(sum(values) / len(values), rel=0.01)
        assert (cells[6] == "none") == (method not in (methods_prompt.LORA, methods_prompt.INST))
    methods_tables.write_rows(tmp_path / "a.csv", rows)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == len(rows) + 1


def test_what_was_kept_from_before_is_not_counted_as_quick():
    rng = random.Random(1)
    first, second = made_up(rng), made_up(rng)
    for style in STYLES:
        second["node_seconds"][f"lora {style.name}"] = 0.0
    rows = [*compare_methods.rows_of(CONTENTS[0], first), *compare_methods.rows_of(CONTENTS[1], second)]
    expected = sum(first["node_seconds"][f"lora {style.name}"] for style in STYLES) / len(STYLES)
    assert f"| {expected:.0f} |" in methods_tables.means(rows)[2]
