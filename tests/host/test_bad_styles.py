"""Refusals of Style, and of the sampler and guider with styles: before any UNet evaluation, the MODEL untouched."""

from __future__ import annotations

import math

import pytest
import steps
import tiny
import torch
from node_bench import STYLE, UGLY, refused, table

pytest_plugins = ("guards",)
ONES = torch.ones(1, 16, 16)


def filled(value):
    """A mask with one pixel of another value."""
    mask = ONES.clone()
    mask[0, 3, 5] = value
    return mask


MASKS = [
    ({"mask": filled(math.nan)}, "mask of style 2", "NaN", "check the node that made it"),
    ({"mask": filled(math.inf)}, "mask of style 2", "not finite"),
    ({"mask": filled(-0.5)}, "mask of style 2", "-0.5..1", "Divide by the largest value"),
    ({"mask": ONES * 255}, "mask of style 2", "255", "Divide by the largest value"),
    ({"mask": torch.ones(0, 8, 8)}, "mask of style 2", "no values"),
    ({"mask": torch.ones(1, 0, 8)}, "mask of style 2", "no values"),
    ({"mask": torch.ones(1, 1, 8, 8)}, "mask of style 2", "shape [1, 1, 8, 8]"),
]


@pytest.fixture
def lora(pack, bench):
    return steps.random_lora(pack, bench.model, 1)


@pytest.mark.parametrize(**table(MASKS))
def test_masks_that_are_none(pack, bench, lora, changes, words):
    with refused(bench, *words):
        steps.chain(pack, {"lora": lora, "positive": STYLE, "mask": ONES}, {"lora": lora, "positive": STYLE, **changes})


@pytest.mark.parametrize("value", [1.0005, -0.0005])
def test_a_masks_rounding_is_forgiven(pack, lora, value):
    (style,) = steps.chain(pack, {"lora": lora, "positive": STYLE, "mask": filled(value)})
    assert style.mask.min() >= 0
    assert style.mask.max() <= 1


def test_two_styles_without_a_mask(pack, bench, lora):
    with refused(bench, "style 1 and style 2 both", "no mask", "LoRA Switch Schedule"):
        steps.chain(pack, *[{"lora": lora, "positive": STYLE}] * 2)
    with refused(bench, "style 1 and style 3 both", "no mask"):
        steps.chain(pack, *({"lora": lora, "positive": STYLE, "mask": m} for m in (None, ONES, None)))


def both_nodes(pack, bench, features, **settings):
    """The two nodes that take styles, each as a call."""
    yield lambda: bench.sampler(features, **settings)
    yield lambda: steps.guider(pack, bench.model, features, STYLE, UGLY, **settings)


def test_masks_of_more_frames_than_there_are(pack, bench, lora):
    styles = steps.chain(pack, {"lora": lora, "positive": STYLE, "mask": torch.ones(3, 8, 8)})
    for run in both_nodes(pack, bench, bench.capture()[0], styles=styles):
        done = bench.evaluations
        with pytest.raises(ValueError, match=r"mask of style 1: .*one content picture is expected, got 3 masks.*Masks"):
            run()
        assert bench.evaluations == done


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"lora": "wired"}, ("styles and lora", "both were given", "unplug styles")),
        ({"lora_name": "any.safetensors"}, ("styles and lora", "both were given", "lora_name to 'none'")),
        ({"outside": "blur"}, ("outside", "'blur'", "regenerate")),
    ],
)
def test_styles_beside_something_else(pack, bench, lora, extra, words):
    features = bench.capture()[0]
    extra = {k: lora if v == "wired" else v for k, v in extra.items()}
    styles = steps.chain(pack, {"lora": lora, "positive": STYLE, "mask": ONES})
    for call in both_nodes(pack, bench, features, styles=styles, **extra):
        with refused(bench, *words):
            call()


def test_a_style_for_another_model_is_named(pack, bench, lora):
    features = bench.capture()[0]
    foreign = steps.random_lora(pack, tiny.make_model("sdxl"), 1)
    styles = steps.chain(pack, {"lora": lora, "positive": STYLE, "mask": ONES}, {"lora": foreign, "positive": STYLE})
    for call in both_nodes(pack, bench, features, styles=styles):
        with refused(bench, "style 2", "family"):
            call()


def test_an_empty_or_full_mask_is_said_on_the_node(pack, lora):
    text = pack.core.styles.words.describe(
        steps.chain(
            pack,
            {"lora": lora, "positive": STYLE, "mask": 0 * ONES},
            {"lora": lora, "positive": STYLE, "mask": ONES},
            {"lora": lora, "positive": STYLE},
        )
    )
    assert text.splitlines() == [
        "style 1: mask, 0.0 % (empty: no effect)",
        "style 2: mask, 100.0 %",
        "style 3: the rest of the picture",
    ]
