"""The chain of styles: what it takes, what it refuses, and its regions."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.lora.schedule import LoraSchedule
from diffstyler_core.masks.mask import feather, grow, resize_by_area
from diffstyler_core.styles.style import Style, add_style, frame_count_of, masks_of, regions_of, require_masks_fit

HALF = torch.zeros(1, 16, 16)
HALF[..., :8] = 1.0


def chain(*masks):
    styles = ()
    for i, mask in enumerate(masks):
        styles = add_style(styles, Style({}, f"prompt {i}", 1.0, mask))
    return styles


def test_a_chain_keeps_its_order_and_changes_nothing_it_was_given():
    first = chain(HALF)
    both = add_style(first, Style(LoraSchedule(()), "other", 0.5))
    assert len(first) == 1
    assert both[0] is first[0]
    assert [style.positive for style in both] == ["prompt 0", "other"]
    assert both[0].mask.shape == (16, 16)
    assert HALF.shape == (1, 16, 16)
    assert both[1].mask is None
    assert both[1].strength == 0.5


@pytest.mark.parametrize(("masks", "numbers"), [((None, None), (1, 2)), ((HALF, None, HALF, None), (2, 4))])
def test_a_second_style_without_a_mask_is_refused(masks, numbers):
    with pytest.raises(ValueError, match=f"style {numbers[0]} and style {numbers[1]} both have no mask"):
        chain(*masks)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(2, 2, 4, 4), r"got shape \[2, 2, 4, 4\]"),
        (torch.zeros(0, 4, 4), "no values"),
        (torch.full((4, 4), math.nan), "not finite"),
        (torch.full((4, 4), 2.0), "got 2..2"),
    ],
)
def test_a_bad_mask_is_named_by_its_style(mask, words):
    with pytest.raises(ValueError, match=f"^mask of style 3.*{words}"):
        chain(HALF, None, mask)


def test_masks_of_any_resolution_and_none_together():
    styles = chain(HALF, torch.ones(5, 3) * 0.5, None, torch.zeros(64, 64))
    regions = regions_of(styles, (4, 8), (32, 64))
    assert regions.styles.shape == (4, 4, 8)
    assert torch.allclose(regions.styles[:, 0, 0], torch.tensor([2 / 3, 1 / 3, 0.0, 0.0]))
    assert torch.allclose(regions.styles[:, 0, -1], torch.tensor([0.0, 0.5, 0.5, 0.0]))
    assert not regions.rest.any()


def test_masks_of_frames_share_every_frame_as_if_it_were_alone(seed):
    """One mask for all of three frames, one for each, and a style of the rest."""
    frames = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(seed))
    (masked, *_) = (styles := chain(frames, HALF, None))
    assert masked.mask.shape == (3, 64, 96)
    assert frame_count_of(styles) == 3
    together = regions_of(styles, (8, 12), (64, 96), grow=2, feather=3)
    assert together.styles.shape == (3, 3, 8, 12)
    for i in range(3):
        alone = regions_of(chain(frames[i], HALF, None), (8, 12), (64, 96), grow=2, feather=3)
        assert torch.equal(together.styles[:, i], alone.styles)
        assert torch.equal(together.rest[i], alone.rest)
        assert torch.equal(together.among_styles()[:, i], alone.among_styles())


def test_masks_of_another_number_of_frames_are_refused():
    styles = chain(HALF, torch.zeros(3, 4, 4))
    require_masks_fit(styles, 3)
    for frames, words in ((2, "each of the 2 frames"), (1, "the one content picture")):
        with pytest.raises(ValueError, match=f"^mask of style 2: one mask for all frames or one for {words}.*got 3"):
            require_masks_fit(styles, frames)


def test_growth_and_feather_come_before_the_means(seed):
    mask = (torch.rand(64, 64, generator=torch.Generator().manual_seed(seed)) > 0.97).float()
    regions = regions_of(chain(mask), (8, 8), (64, 64), grow=3, feather=5)
    assert torch.equal(regions.styles[0], resize_by_area(feather(grow(mask, 3), 5), 8, 8))
    assert masks_of(chain(mask, None), (8, 8), (64, 64), 3, 5)[1] is None


def test_masks_of_an_uncropped_picture_are_cropped_with_it():
    mask = torch.zeros(70, 77)  # VAE Encode keeps rows 3..67 and columns 2..74
    mask[3:11, 2:10] = 1.0
    (share,) = regions_of(chain(mask), (8, 9), (64, 72)).styles
    assert share[0, 0] == 1
    assert share.sum() == 1


def test_a_named_style_is_called_by_number_and_name_and_two_may_share_one():
    styles = add_style(add_style((), Style({}, "a", mask=HALF, name="ink")), Style({}, "b", name="ink"))
    assert [style.label(number) for number, style in enumerate(styles, 1)] == ["style 1 'ink'", "style 2 'ink'"]
    assert Style({}, "c").label(3) == "style 3"
    with pytest.raises(ValueError, match=r"^style 2 'ink' and style 3 'oil' both have no mask"):
        add_style(styles, Style({}, "c", name="oil"))
    with pytest.raises(ValueError, match=r"^mask of style 3 'oil'"):
        add_style(styles, Style({}, "c", mask=torch.full((2, 4, 4), math.nan), name="oil"))
    with pytest.raises(ValueError, match=r"^strength of style 3 'oil'"):
        add_style(styles, Style({}, "c", strength=math.nan, name="oil"))
