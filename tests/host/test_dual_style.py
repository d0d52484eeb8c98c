"""demo/dual-style.md: what its prompts hold, its figures with a tiny CLIP, and that its tables say what they say."""

from __future__ import annotations

import math

import pytest
import tiny_clip
import torch

from diffstyler_core.metrics.available import NotAvailable
from tools import dual_style_figures as figures
from tools import dual_style_prompt as dp
from tools import dual_style_tables as tables


def test_a_content_is_encoded_once_and_sampled_by_every_method():
    api = dp.content_prompt("content_bay.jpg", dp.Settings(steps=30))
    kinds = [node["class_type"] for node in api.values()]
    assert kinds.count("DiffStyler_CycleDiffusionInvert") == 1
    assert api["encoded"]["inputs"]["skip"] == 3
    profiles, pairs = len(dp.PROFILES), len(dp.PAIRS)
    assert kinds.count("DiffStyler_BlendConditionings") == profiles * pairs
    assert kinds.count("DiffStyler_InjectedSampler") == pairs * (3 + 2 * profiles)  # each alone, arranged, both ways
    assert {result.title for result in dp.results()} < set(api)
    links = [value[0] for node in api.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert set(links) <= set(api)
    for result in dp.results():
        sampler = sampler_of(api, api[result.title]["inputs"]["images"][0])
        styled = "styles" in sampler["inputs"] if sampler else False
        assert styled == (result.method == dp.EPSILON)


def sampler_of(api, picture):
    decoded = api[picture]
    return api[decoded["inputs"]["samples"][0]] if decoded["class_type"] == "VAEDecode" else None


def test_left_and_right_go_where_the_masks_say():
    """The ramp rises to the right, so its inverse is the first style's, and the second is pasted by it."""
    api = dp.content_prompt("content_bay.jpg", dp.Settings())
    assert api["Minecraft linear"]["inputs"]["mask"] == ["linear", 1]
    assert api["Van Gogh linear"]["inputs"]["mask"] == ["linear", 0]
    pasted = api["Minecraft Van Gogh linear pixel"]["inputs"]
    assert (pasted["destination"], pasted["source"], pasted["mask"]) == (
        ["Minecraft alone", 0], ["Van Gogh alone", 0], ["linear", 0],
    )  # fmt: skip
    assert api["Minecraft Van Gogh arranged"]["inputs"]["text"].startswith("On the left: A Minecraft")


def test_pixel_figures_in_closed_form():
    content = torch.full((16, 16, 3), 0.25)
    found = figures.pixel_figures(content + 0.5, content, NotAvailable("none"))
    assert found["L2"] == pytest.approx(0.5 * math.sqrt(16 * 16 * 3))
    assert found["PSNR"] == pytest.approx(20 * math.log10(2))
    assert found["Smooth."] == 0.0
    assert isinstance(found["LPIPS"], NotAvailable)


def test_clip_figures_are_those_of_transformers(tmp_path):
    model = tiny_clip.make_folder(tmp_path)
    torch.manual_seed(1)
    content, result = torch.rand(32, 32, 3), torch.rand(32, 32, 3)
    targets = {"": "a mosaic", " r.": "an ink drawing", " l.": "an oil painting"}
    clip = figures.Clip(tmp_path)
    found = figures.clip_figures(result, content, "a photo", targets, clip)
    assert set(found) == set(figures.CLIP)
    for part, columns in {"": slice(None), " r.": slice(16, None), " l.": slice(None, 16)}.items():
        inputs = clip._tokens(targets[part], return_tensors="pt")
        pixels = clip._prepare(images=result[:, columns].numpy(), do_rescale=False, return_tensors="pt")
        whole = model(**inputs, **pixels)
        expected = torch.nn.functional.cosine_similarity(whole.image_embeds, whole.text_embeds).item()
        assert found[f"CLIP{part}"] == pytest.approx(expected, abs=1e-5)
        assert -1.0 <= found[f"DCLIP{part}"] <= 1.0


def test_tables_give_means_and_errors_over_contents_and_say_what_is_missing():
    rows = []
    for number, content in enumerate(("cat", "bay")):
        for at, result in enumerate(dp.results()):
            value = {metric: float(10 * number + at) for names in figures.ROWS.values() for metric in names}
            rows.append(tables.Row(content, result, {**value, "LPIPS": NotAvailable("no weights")}))
    text = tables.report(rows, dp.Settings(), "1 s on a machine", "python3 tools/dev.py compare dual-style")
    linear, logistic = (part.splitlines() for part in text.split("## L")[1:])
    # Cross, linear: the pairs' numbers are 0 and 7 (7 pictures a pair), 10 more for the second content
    cell = next(line for line in linear if line.startswith("| L2 |")).split("|")
    assert cell[2].strip() == f"{(3.5 + 13.5) / 2:.3g} \u00b1 {math.sqrt(50) / math.sqrt(2):.2g}"
    assert len(cell) - 2 == 1 + 4
    assert next(line for line in logistic if line.startswith("| PSNR |")).count("|") - 1 == 1 + 3
    assert "| LPIPS | not available |" in text
    assert "Not available: LPIPS: no weights." in text


def test_a_folder_without_a_clip_is_a_reason(tmp_path):
    with pytest.raises(NotAvailable, match="no CLIP as transformers saves it"):
        figures.Clip(tmp_path)
