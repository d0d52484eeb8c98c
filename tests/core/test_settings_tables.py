"""demo/settings.md from kept runs: every choice is a row, and what is chosen is computed."""

from __future__ import annotations

from tools import settings_prompt as sp
from tools import settings_tables as tables
from tools.results_prompt import CONTENTS, STYLES
from tools.results_tables import COLUMNS


def rows():
    """Edges rise and style falls with the number of a choice; the chosen one between the paper's and nothing."""
    made = []
    for content in ("astronaut", "coffee"):
        for style in ("oil painting", "mosaic"):
            for number, choice in enumerate(sp.CHOICES, 1):
                values = dict.fromkeys(COLUMNS, 0.1 * number)
                made.append(tables.Row(content, style, choice.name, values, 2.0))
    return made


def test_a_prompt_samples_every_choice_once():
    api = sp.content_prompt(CONTENTS[0], STYLES[:1])
    samplers = [node for node in api.values() if node["class_type"] == "DiffStyler_InjectedSampler"]
    assert len(samplers) == len(sp.CHOICES)
    named = {node["inputs"]["injection"][0] for node in samplers}
    assert named == {choice.name for choice in sp.CHOICES}
    assert all(api[name]["class_type"] == "DiffStyler_InjectionSettings" for name in named)
    captured = {layer for choice in sp.CHOICES for layer in choice.features.split(",") if layer}
    assert captured <= set(api["capture"]["inputs"]["feature_layers"].split(","))


def test_the_page_and_the_table(tmp_path):
    page = tables.report(rows(), "1 min on a machine", "python3 tools/dev.py compare settings")
    for choice in sp.CHOICES:
        assert page.count(f"| {choice.name} |") == 2, choice.name
    assert "2 contents (astronaut, coffee) in 2 styles (oil painting, mosaic)" in page
    assert "| +0 % | +0 % | 2 |" in page, "nothing injected against itself"
    tables.write_rows(tmp_path / "settings.csv", rows())
    lines = (tmp_path / "settings.csv").read_text().splitlines()
    assert lines[0].startswith("content,style,injected,edges,")
    assert len(lines) == 1 + 4 * len(sp.CHOICES)
