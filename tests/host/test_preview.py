"""Spatial Ramp Mask and Preview Styles: sizes, words, refusals, and what the picture shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import regions_bench as rb
import torch


def columns(first, last, height=64, width=64):
    """A MASK [1, H, W] that is 1 in these columns."""
    mask = torch.zeros(1, height, width)
    mask[..., first:last] = 1.0
    return mask


def test_a_ramp_and_its_inverse(pack):
    (mask, inverted), words, picture = rb.ramp(pack)
    assert mask.shape == (1, 4, 8)
    assert torch.allclose(mask[0, 0], (torch.arange(8) + 0.5) / 8)
    assert torch.equal(mask + inverted, torch.ones(1, 4, 8))
    assert words == "8 x 4, 50.0 % covered"
    assert np.allclose(picture[..., 0], 255 * mask[0].numpy(), atol=1)


def test_a_ramp_takes_the_size_of_a_picture(pack, seed):
    (mask, _), words, _ = rb.ramp(pack, image=rb.pictures(seed, 10, 30), angle=90.0, profile="step")
    assert mask.shape == (1, 10, 30)
    assert (mask[0].mean(1) > 0.5).tolist() == [False] * 5 + [True] * 5
    assert words.startswith("30 x 10")


@pytest.mark.parametrize(("angle", "first"), [(0.0, (0, 2)), (90.0, (3, 0))])
def test_a_ramp_has_its_line_at_the_centre(pack, angle, first):
    (mask, _), *_ = rb.ramp(pack, profile="step", angle=angle, centre_x=0.25, centre_y=0.75)
    assert tuple(mask[0].nonzero()[0].tolist()) == first
    assert mask[0, -1, -1] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sharpness": 0.0}, ("sharpness must be a number in 0.01..100", "0.0")),
        ({"profile": "cubic"}, ("profile", "'cubic'", "logistic")),
        ({"width": 0}, ("width must be a number in 1..16384", "got 0")),
        ({"angle": math.nan}, ("must be numbers", "nan")),
        ({"width": 16385}, ("width must be a number in 1..16384", "16385")),
        ({"height": 0}, ("height must be a number in 1..16384", "got 0")),
        ({"sharpness": math.nan}, ("sharpness must be a number in 0.01..100", "nan")),
        ({"centre_x": math.inf}, ("centre_x must be a number in -1..2", "inf")),
        ({"centre_y": 1e308}, ("centre_y must be a number in -1..2", "1e+308")),
        ({"image": torch.zeros(0, 8, 8, 3)}, ("image", "[0, 8, 8, 3]")),
        ({"image": torch.zeros(1, 8, 8, 4)}, ("image: ", "[1, 8, 8, 4]", "Split Image with Alpha")),
    ],
)
def test_ramps_that_are_refused(pack, changes, words):
    with rb.refuses(*words):
        rb.ramp(pack, **changes)


def test_two_styles_of_a_ramp_share_the_picture(pack, seed):
    (mask, inverted), *_ = rb.ramp(pack, width=64, height=48)
    _, words, _ = rb.preview(pack, rb.styles(pack, mask, inverted), rb.pictures(seed, 48, 64))
    assert words.split("\n")[:3] == ["style 1: 50.0 %", "style 2: 50.0 %", "no style: 0.0 %"]


@pytest.mark.parametrize(
    ("masks", "settings", "words"),
    [
        ([columns(0, 16)], {}, ["style 1: 25.0 %", "no style: 75.0 %", "0.0 %"]),
        ([columns(0, 16), None], {}, ["style 1: 25.0 %", "style 2: 75.0 % (no mask: the rest)", "no style: 0.0 %"]),
        ([columns(0, 32), columns(16, 64)], {}, ["style 1: 37.5 %", "style 2: 62.5 %", "1: 25.0 % of the pixels"]),
        ([columns(0, 0), columns(0, 64)], {}, ["style 1: 0.0 % (empty mask: no effect)", "style 2: 100.0 %"]),
        ([columns(0, 8, 16, 32)], {}, ["style 1: 25.0 %", "no style: 75.0 %"]),
        ([columns(0, 16)], {"mask_grow": 16}, ["style 1: 50.0 %"]),
        ([columns(0, 16)], {"mask_grow": -8}, ["style 1: 12.5 %"]),
        ([columns(0, 32)], {"mask_feather": 9}, ["style 1: 50.0 %", "no style: 50.0 %"]),
    ],
)
def test_the_words(pack, seed, masks, settings, words):
    _, text, _ = rb.preview(pack, rb.styles(pack, *masks), rb.pictures(seed, 64, 64), **settings)
    assert [word for word in words if word not in text] == [], text


def test_regions_are_tinted_by_their_share_and_the_rest_stays(pack):
    content = torch.full((1, 200, 300, 3), 0.5)
    ramp = torch.linspace(0, 1, 100).expand(1, 200, 100)
    mask = torch.cat([torch.zeros(1, 200, 100), ramp, torch.ones(1, 200, 100)], 2)
    (drawn,), _, picture = rb.preview(pack, rb.styles(pack, mask), content)
    assert drawn.shape == (1, 200, 300, 3)
    assert np.allclose(picture, 255 * drawn[0].numpy(), atol=1)
    colour, row = torch.tensor(pack.drawing.palette.colour_of(0)), drawn[0, 3]  # far from the number
    tint = (row - 0.5) @ (colour - 0.5) / (colour - 0.5).square().sum()
    near_line = (torch.arange(300) - 150).abs() < 6
    expected = pack.masks.preview.TINT * mask[0, 3]
    assert torch.allclose(tint[~near_line], expected[~near_line], atol=0.02)
    assert (content == 0.5).all(), "the given picture is not drawn upon"


def test_a_line_runs_where_the_mask_is_a_half(pack):
    content = torch.full((1, 200, 200, 3), 0.5)
    (drawn,), *_ = rb.preview(pack, rb.styles(pack, columns(0, 80, 200, 200)), content)
    bright = 0.5 + 0.5 * torch.tensor(pack.drawing.palette.colour_of(0))
    assert torch.allclose(drawn[0, 3, 79], bright, atol=0.01)
    assert (drawn[0, 3, 80] < 0.2).all(), "dark outside"
    assert torch.allclose(drawn[0, 3, 78], drawn[0, 3, 10], atol=0.01)
    assert torch.allclose(drawn[0, 0, 10], drawn[0, 3, 10], atol=0.01), "the picture's border is no edge"


def test_numbers_stand_in_their_regions_and_never_on_each_other(pack):
    """White pixels appear only as numbers: in the middle of each region, side by side for equal masks."""

    def white(*masks):
        chain = rb.styles(pack, *masks)
        (drawn,), *_ = rb.preview(pack, chain, torch.zeros(1, 200, 600, 3))
        return (drawn[0].amin(-1) > 0.9).any(0).nonzero()[:, 0]

    apart = white(columns(0, 200, 200, 600), columns(400, 600, 200, 600))
    assert apart[apart < 300].double().mean().item() == pytest.approx(100, abs=10)
    assert apart[apart > 300].double().mean().item() == pytest.approx(500, abs=10)
    assert ((apart - 300).abs() > 180).all()
    everywhere = columns(0, 600, 200, 600)
    two = white(everywhere, everywhere)
    assert two.max() - two.min() >= 20, "a number is 20 pixels high here, and narrower than that"
    assert len(white(columns(0, 0))) == 0


@pytest.mark.parametrize("size", [(8, 8), (1, 300), (513, 77)])
def test_pictures_of_any_size(pack, seed, size):
    content = rb.pictures(seed, *size)
    (drawn,), *_ = rb.preview(pack, rb.styles(pack, columns(0, 30), None), content, mask_grow=2, mask_feather=3)
    assert drawn.shape == content.shape


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(2, 8, 8, 3), ("content: one picture", "batch of 2", "Image From Batch")),
        (torch.zeros(1, 8, 8, 4), ("content: RGB", "[1, 8, 8, 4]", "Split Image with Alpha")),
        (torch.zeros(1, 8, 8, 1), ("content: RGB", "[1, 8, 8, 1]", "greyscale")),
        (torch.zeros(8, 8, 3), ("content: RGB", "[8, 8, 3]")),
        (torch.full((1, 8, 8, 3), math.nan), ("content", "NaN", "check the node that made it")),
    ],
)
def test_pictures_that_are_refused(pack, content, words):
    with rb.refuses(*words):
        rb.preview(pack, rb.styles(pack, columns(0, 4)), content)


def test_a_negative_feather_is_refused(pack):
    with rb.refuses("mask_feather must be a number in 0..512", "got -1"):
        rb.preview(pack, rb.styles(pack, columns(0, 4)), torch.zeros(1, 8, 8, 3), mask_feather=-1)


def test_a_large_ramp_is_shown_small_and_counted_exactly(pack):
    (mask, inverted), words, picture = rb.ramp(pack, width=3000, height=1200, profile="step")
    assert mask.shape == inverted.shape == (1, 1200, 3000)
    assert words == "3000 x 1200, 50.0 % covered"
    assert picture.shape == (400, 1000, 3)


def named(pack, *rows):
    """A chain of styles with these (mask, name)."""
    chain = ()
    for mask, name in rows:
        node = pack.pipeline.style.StyleNode
        (chain,), *_ = rb.run(node, lora={}, positive=rb.PROMPT, strength=1.0, mask=mask, previous=chain, name=name)
    return chain


def test_names_are_in_the_words_and_below_the_numbers(pack):
    black = torch.zeros(1, 200, 600, 3)
    left, right = columns(0, 300, 200, 600), columns(300, 600, 200, 600)
    plain = rb.preview(pack, rb.styles(pack, left, right), black)[0][0]
    chain = named(pack, (left, " the\nsky "), (right, ""))
    (drawn,), words, _ = rb.preview(pack, chain, black)
    assert words.split("\n")[:2] == ["style 1 'the sky': 50.0 %", "style 2: 50.0 %"]
    changed = (drawn != plain)[0].any(-1).nonzero()
    assert changed[:, 0].min() > 100, "the name is below the number, which is in the middle"
    assert changed[:, 1].max() < 300
    assert len(changed) > 50


@pytest.mark.parametrize("name", ["n" * 200, "\u58a8" * 40, "ink"])
def test_names_of_any_length_and_script_are_drawn_apart(pack, name):
    everywhere = columns(0, 600, 200, 600)
    chain = named(pack, (everywhere, name), (everywhere, name), (columns(0, 20, 200, 600), name))
    (drawn,), words, _ = rb.preview(pack, chain, torch.zeros(1, 200, 600, 3))
    assert drawn.shape == (1, 200, 600, 3)
    assert words.count(repr(name)) == 3


def test_masks_of_frames_are_drawn_on_their_frames(pack, seed):
    """A picture for each frame, as each would be drawn alone; the words are of all of them."""
    frames, masks = rb.pictures(seed, 64, 64, 2), torch.cat([columns(0, 16), columns(0, 48)])
    (drawn,), words, _ = preview_of(pack, rb.styles(pack, masks, None), frames)
    assert drawn.shape == (2, 64, 64, 3)
    for i in range(2):
        (alone,), _, _ = rb.preview(pack, rb.styles(pack, masks[i], None), frames[i : i + 1])
        assert torch.equal(drawn[i : i + 1], alone)
    assert words.startswith("style 1: 50.0 %\nstyle 2: 50.0 % (no mask: the rest)")
    with rb.refuses("mask of style 1: one mask for all frames", "3 frames", "got 2 masks"):
        rb.preview(pack, rb.styles(pack, masks, None), rb.pictures(seed, 64, 64, 3))


def preview_of(pack, styles, content):
    """(outputs, words, the files on the node): one for each frame."""
    out = pack.masks.preview.PreviewStyles.execute(styles=styles, content=content, mask_grow=0, mask_feather=0)
    return out.args, out.ui["text"][0], out.ui["images"]
