"""Paste Content Back: the content bit for bit outside, the result inside, sizes as VAE Encode crops them."""

from __future__ import annotations

import math

import pytest
import regions_bench as rb
import tiny
import torch


def block(height, width, rows, columns):
    """A MASK [1, H, W] that is 1 in this rectangle."""
    mask = torch.zeros(1, height, width)
    mask[:, slice(*rows), slice(*columns)] = 1.0
    return mask


def given(pack, kind, mask):
    """The mask as the node's mask, or as a Style's."""
    return {"mask": mask} if kind == "mask" else {"styles": rb.styles(pack, mask)}


@pytest.fixture(params=["mask", "styles"])
def kind(request):
    return request.param


def test_bit_for_bit_on_both_sides(pack, seed, kind):
    content, result = rb.pictures(seed, 64, 96), rb.pictures(seed + 1, 64, 96)
    mask = block(64, 96, (20, 50), (30, 70))
    image, words = rb.paste(pack, result, content, **given(pack, kind, mask))
    assert torch.equal(image, torch.where(mask[..., None] > 0, result, content))
    part = 100 * 30 * 40 / (64 * 96)
    shares = f"result {part:.1f} %, content's own pixels on {100 - part:.1f} % of the picture"
    assert words == f"{shares}\nedge: hard, at the masks' edge"


@pytest.mark.parametrize(("grow", "feather"), [(8, 8), (0, 5), (6, 0), (-4, 3)])
def test_growth_and_feather_reach_as_far_as_they_say(pack, seed, kind, grow, feather):
    content, result = rb.pictures(seed, 80, 96), rb.pictures(seed + 1, 80, 96)
    mask = block(80, 96, (0, 80), (0, 40))
    image, words = rb.paste(pack, result, content, grow, feather, **given(pack, kind, mask))
    assert ("edge: hard" in words) == (feather == 0)
    assert f"over {feather} pixels to each side" in words or not feather
    assert f"{abs(grow)} pixels {'outside' if grow > 0 else 'inside'} of the masks" in words or not grow
    start, end = 40 + grow - feather, 40 + grow + feather
    assert torch.equal(image[:, :, :start], result[:, :, :start])
    assert torch.equal(image[:, :, end:], content[:, :, end:])
    for column in range(start, end):
        assert not torch.equal(image[:, :, column], content[:, :, column])
        assert not torch.equal(image[:, :, column], result[:, :, column])


def test_soft_masks_blend(pack, seed, kind):
    content, result = rb.pictures(seed, 16, 16), rb.pictures(seed + 1, 16, 16)
    image, _ = rb.paste(pack, result, content, **given(pack, kind, torch.full((1, 16, 16), 0.25)))
    assert torch.allclose(image, 0.25 * result + 0.75 * content, atol=1e-6)


def test_several_styles_are_kept_together(pack, seed):
    content, result = rb.pictures(seed, 32, 32), rb.pictures(seed + 1, 32, 32)
    left, top = block(32, 32, (0, 32), (0, 12)), block(32, 32, (0, 12), (0, 32))
    image, _ = rb.paste(pack, result, content, styles=rb.styles(pack, left, top))
    assert torch.equal(image, torch.where((left + top)[..., None] > 0, result, content))


def test_a_mask_of_another_resolution_covers_the_same_part(pack, seed, kind):
    content, result = rb.pictures(seed, 64, 64), rb.pictures(seed + 1, 64, 64)
    image, _ = rb.paste(pack, result, content, **given(pack, kind, block(16, 32, (4, 8), (0, 16))))
    assert torch.equal(image[:, 16:32, :32], result[:, 16:32, :32])
    assert torch.equal(image[:, 32:], content[:, 32:])
    assert torch.equal(image[:, :, 32:], content[:, :, 32:])


def test_all_zero_is_the_content_and_all_one_the_result(pack, seed, kind):
    content, result = rb.pictures(seed, 24, 24), rb.pictures(seed + 1, 24, 24)
    image, words = rb.paste(pack, result, content, 8, 8, **given(pack, kind, torch.zeros(1, 24, 24)))
    assert torch.equal(image, content)
    assert "every mask is empty" in words
    image, words = rb.paste(pack, result, content, 8, 8, **given(pack, kind, torch.ones(1, 24, 24)))
    assert torch.equal(image, result)
    assert "all of the result is kept" in words


def test_a_style_without_a_mask_keeps_all_of_the_result(pack, seed):
    content, result = rb.pictures(seed, 24, 24), rb.pictures(seed + 1, 24, 24)
    image, words = rb.paste(pack, result, content, 8, 8, styles=rb.styles(pack, block(24, 24, (0, 9), (0, 9)), None))
    assert torch.equal(image, result)
    assert "all of the result is kept" in words


def test_several_results_are_pasted_into_one_content_and_nothing_given_is_changed(pack, seed):
    content, results = rb.pictures(seed, 24, 24), rb.pictures(seed + 1, 24, 24, count=3)
    before = content.clone(), results.clone()
    mask = block(24, 24, (5, 15), (5, 15))
    image, _ = rb.paste(pack, results, content, 2, 2, mask=mask)
    assert image.shape == (3, 24, 24, 3)
    for one, result in zip(image, results, strict=True):
        assert torch.equal(one, rb.paste(pack, result[None], content, 2, 2, mask=mask)[0][0])
    assert torch.equal(content, before[0])
    assert torch.equal(results, before[1])


@pytest.mark.parametrize("size", [(70, 77), (71, 64), (64, 65), (73, 79), (64, 96)])
def test_a_result_of_the_hosts_own_crop_is_put_back_in_its_place(pack, seed, kind, size):
    """What VAE Encode keeps of the content, pasted back everywhere, is the content."""
    vae, content = tiny.make_vae(), rb.pictures(seed, *size)
    cropped = vae.vae_encode_crop_pixels(content)
    assert vae.decode(vae.encode(content)).shape == cropped.shape
    image, _ = rb.paste(pack, cropped, content, **given(pack, kind, torch.ones(1, *size)))
    assert torch.equal(image, content)
    mask = block(*size, (24, 40), (16, 48))
    image, _ = rb.paste(pack, torch.zeros_like(cropped), content, **given(pack, kind, mask))
    assert torch.equal(image, torch.where(mask[..., None] > 0, torch.zeros(()), content)), "the mask is aligned, too"


def test_the_border_that_was_cropped_is_the_contents(pack, seed):
    content = rb.pictures(seed, 70, 77)
    image, words = rb.paste(pack, torch.zeros(1, 64, 72, 3), content, mask=torch.ones(1, 64, 72))
    inside = block(70, 77, (3, 67), (2, 74))[..., None]
    assert torch.equal(image, torch.where(inside > 0, torch.zeros(()), content))
    part = 100 * 64 * 72 / (70 * 77)
    assert f"result {part:.1f} %, content's own pixels on {100 - part:.1f} %" in words


MASK = torch.ones(1, 64, 64)


@pytest.mark.parametrize("count", [1, 3])
def test_frames_are_pasted_each_with_its_own_mask_and_content(pack, seed, kind, count):
    """As one by one; count: contents."""
    contents, results = rb.pictures(seed, 32, 48, count), rb.pictures(seed + 1, 32, 48, 3)
    masks = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(seed)).round()
    image, words = rb.paste(pack, results, contents, 1, 2, **given(pack, kind, masks))
    alone = [
        rb.paste(pack, results[i : i + 1], contents[i % count][None], 1, 2, **given(pack, kind, masks[i : i + 1]))[0]
        for i in range(3)
    ]
    assert torch.equal(image, torch.cat(alone))
    assert 0.0 < float(words.split()[1]) < 100.0


REFUSED = [
    ({}, ("styles and mask", "neither was given", "Wire just one")),
    ({"mask": torch.zeros(2, 64, 64)}, ("mask: one mask for all frames", "got 2 masks")),
    ({"mask": torch.full((1, 64, 64), math.nan)}, ("mask", "NaN")),
    ({"mask": torch.full((1, 64, 64), 3.0)}, ("mask: ", "0..1", "3..3")),
    ({"mask": MASK, "feather": -1}, ("feather must be a number in 0..512", "got -1")),
    (
        {"mask": MASK, "content": torch.zeros(2, 64, 64, 3)},
        ("content: one picture for all results or one for each of the 1", "batch of 2"),
    ),
    ({"mask": MASK, "content": torch.zeros(1, 64, 64, 4)}, ("content: RGB", "[1, 64, 64, 4]")),
    ({"mask": MASK, "result": torch.zeros(1, 64, 64, 1)}, ("result: RGB", "[1, 64, 64, 1]")),
    ({"mask": MASK, "result": torch.full((1, 64, 64, 3), math.inf)}, ("result", "infinity")),
    ({"mask": MASK, "result": torch.zeros(1, 32, 64, 3)}, ("result is 64 x 32", "content 64 x 64", "content's size.")),
    ({"mask": MASK, "content": torch.zeros(1, 77, 70, 3)}, ("64 x 64", "content 70 x 77", "size or 64 x 72, as VAE")),
    ({"mask": MASK, "content": torch.zeros(1, 63, 64, 3)}, ("64 x 64", "content 64 x 63", "or 64 x 56")),
    ({"mask": MASK, "content": torch.zeros(1, 64, 72, 3)}, ("64 x 64", "content 72 x 64", "content's size.")),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_refusals(pack, changes, words):
    with rb.refuses(*words):
        rb.paste(pack, **{"result": torch.zeros(1, 64, 64, 3), "content": torch.zeros(1, 64, 64, 3), **changes})


def test_styles_and_a_mask_together_are_refused(pack):
    picture = torch.zeros(1, 64, 64, 3)
    with rb.refuses("styles and mask", "both were given", "Wire just one"):
        rb.paste(pack, picture, picture, styles=rb.styles(pack, MASK), mask=MASK)
