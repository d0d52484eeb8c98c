"""Styles from Masks: the same picture as chained Regional Styles, lists of any form, and clear refusals."""

from __future__ import annotations

import pytest
import regions_bench as rb
import steps
import tiny
import torch
from fastsam_bench import LEFT, RIGHT, SKY, picture

pytest_plugins = ("fastsam_fixtures",)

MIDDLE = (76, 16, 108, 48)
SCENE = picture((LEFT, (1.0, 0.85, 0.85)), (RIGHT, SKY), (MIDDLE, (0.85, 1.0, 0.85)))
EVERYTHING = torch.ones(1, 64, 64)


def from_masks(pack, masks, positive=(rb.PROMPT,), **changes):
    """(STYLES, words); every input as the host gives it to a node that takes lists."""
    settings = {"positive": positive, "strength": [1.0], "assign": ["in turn"], **changes}
    (styles,), words, _ = rb.run(pack.masks.styles_from_masks.StylesFromMasks, masks=masks, **settings)
    return styles, words


@pytest.fixture
def sampled(pack, seed):
    """``sampled(styles)``: what the real sampler makes of them, on one content."""
    model = tiny.make_model("small", seed=seed)
    latent = {"samples": torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(seed)) * 0.8 / 0.18215}
    empty, negative = tiny.make_prompt(seed), tiny.make_prompt(seed + 1)
    trajectory = steps.invert(pack, model, latent, empty)[0]
    features = steps.capture(pack, model, trajectory, empty)

    def run(styles):
        return steps.sample(pack, model, features, empty, negative, styles=styles)

    run.loras = [steps.random_lora(pack, model, seed + 10 + i, size=0.3) for i in range(3)]
    run.prompts = [tiny.make_prompt(seed + 20 + i) for i in range(3)]
    return run


def test_three_found_objects_get_what_three_chained_nodes_give_them(pack, fastsam, sampled):
    masks = fastsam.run(SCENE, combine="separate")[1]
    assert len(masks) == 3
    styles, words = from_masks(pack, masks, sampled.prompts, lora=sampled.loras, name=["ink", "oil", ""])
    rows = zip(masks, sampled.loras, sampled.prompts, ("ink", "oil", ""), strict=True)
    chained = steps.chain(pack, *({"mask": m, "lora": x, "positive": p, "name": n} for m, x, p, n in rows))
    picture = sampled(styles)
    assert torch.equal(picture, sampled(chained))
    assert not torch.equal(picture, sampled(chained[:2])), "the third object is styled, too"
    assert [line.partition(":")[0] for line in words.split("\n")] == ["style 1 'ink'", "style 2 'oil'", "style 3"]


def test_masks_take_the_styles_in_turn(pack):
    masks = [EVERYTHING * (0.1 * i) for i in range(5)]
    one, two = {"a": torch.ones(1)}, {"b": torch.ones(1)}
    styles, _ = from_masks(pack, masks, lora=[one, two], strength=[0.5])
    assert [style.lora is one for style in styles] == [True, False, True, False, True]
    assert {style.strength for style in styles} == {0.5}
    assert [round(style.mask.mean().item(), 3) for style in styles] == [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("form", ["list", "batch", "both", "flat"])
def test_lists_and_batches_of_masks_are_alike(pack, form):
    three = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    masks = {
        "list": [mask[None] for mask in three],
        "batch": [three],
        "both": [three[:1], three[1:]],
        "flat": list(three),
    }[form]
    styles, _ = from_masks(pack, masks)
    assert torch.equal(torch.stack([style.mask for style in styles]), three)


def test_it_continues_a_chain_and_a_chain_continues_it(pack):
    first = rb.styles(pack, None)
    styles, words = from_masks(pack, [EVERYTHING, 0 * EVERYTHING], previous=[first])
    assert styles[:1] == first
    assert words.split("\n")[2] == "style 3: mask, 0.0 % (empty: no effect), base model"
    (longer,), *_ = rb.run(
        pack.pipeline.style.StyleNode, positive=rb.PROMPT, strength=1.0, mask=EVERYTHING, previous=styles
    )
    assert len(longer) == 4


def test_styles_without_a_mask_are_said(pack):
    styles, words = from_masks(pack, [EVERYTHING], [rb.PROMPT] * 3)
    assert len(styles) == 1
    assert words.endswith("note: 2 of 3 styles have no mask and are not used")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"masks": []}, ("masks: at least one mask", "got none")),
        ({"masks": [EVERYTHING[:0]]}, ("masks: at least one mask", "got none")),
        ({"positive": [rb.PROMPT] * 2, "assign": ["one each"]}, ("masks: ", "got 3 for 2", "in turn")),
        ({"positive": [rb.PROMPT] * 3, "lora": [{}, {}]}, ("lora: one for all", "each of the 3", "got 2")),
        ({"positive": []}, ("positive: one for all", "got 0")),
        ({"strength": [1.0, 9.0, 1.0]}, ("strength of style 2 must be a number in -4..4", "9.0")),
        ({"masks": [EVERYTHING, EVERYTHING * 5], "name": ["cat"]}, ("mask of style 2 'cat'", "5..5")),
        ({"assign": ["any"]}, ("assign must be one of in turn, one each", "'any'")),
        ({"previous": [(), ()]}, ("previous: one is expected", "list of 2")),
        ({"name": ["n" * 201]}, ("name may have 200 letters",)),
    ],
)
def test_refusals(pack, changes, words):
    given = {"masks": [EVERYTHING] * 3, **changes}
    with rb.refuses(*words):
        from_masks(pack, **given)
