"""Regions: shares that sum to one, fusion against a plain loop, and a content that stays bit for bit outside."""

from __future__ import annotations

import pytest
import torch

from diffstyler_core.styles.regions import fuse, localize, share


def row(*values: float) -> torch.Tensor:
    """A mask of one row."""
    return torch.tensor([values])


def random_masks(seed: int, count: int = 3, height: int = 6, width: int = 9) -> list[torch.Tensor]:
    """Masks with exact zeros and ones, and overlaps."""
    generator = torch.Generator().manual_seed(seed)
    return [(3 * torch.rand(height, width, generator=generator) - 1).clamp(0, 1) for _ in range(count)]


@pytest.mark.parametrize(
    ("masks", "styles", "rest"),
    [
        ([row(1, 0, 0), row(0, 1, 0)], [[1, 0, 0], [0, 1, 0]], [0, 0, 1]),
        ([row(0.3, 0.5, 0)], [[0.3, 0.5, 0]], [0.7, 0.5, 1]),
        ([row(0.25, 0.5), row(0.75, 0.25)], [[0.25, 0.5], [0.75, 0.25]], [0, 0.25]),
        ([row(1, 1, 0.75), row(1, 0.25, 0.75)], [[0.5, 0.8, 0.5], [0.5, 0.2, 0.5]], [0, 0, 0]),
        ([row(1), row(1), row(1)], [[1 / 3], [1 / 3], [1 / 3]], [0]),
        ([row(1, 0.25, 0), None], [[1, 0.25, 0], [0, 0.75, 1]], [0, 0, 0]),
        ([None, row(1, 1), row(1, 0.5)], [[0, 0], [0.5, 2 / 3], [0.5, 1 / 3]], [0, 0]),
        ([None], [[1]], [0]),
        ([row(0, 0)], [[0, 0]], [1, 1]),
        ([row(0, 0), None], [[0, 0], [1, 1]], [0, 0]),
    ],
)
def test_shares(masks, styles, rest):
    regions = share(masks, 1, len(rest))
    assert torch.allclose(regions.styles[:, 0], torch.tensor(styles, dtype=torch.float32))
    assert torch.allclose(regions.rest[0], torch.tensor(rest, dtype=torch.float32))
    assert torch.allclose(regions.inside, 1 - regions.rest)


@pytest.mark.parametrize("with_rest", [False, True])
def test_any_shares_sum_to_one_and_keep_their_proportions(seed, with_rest):
    masks = random_masks(seed)
    given = [mask.clone() for mask in masks]
    regions = share([*masks, None] if with_rest else masks, 6, 9)
    total = sum(masks)
    assert torch.allclose(regions.styles.sum(0) + regions.rest, torch.ones(()), atol=1e-6)
    assert (regions.rest >= 0).all()
    for mask, part in zip(masks, regions.styles, strict=False):
        assert torch.allclose(part * total.clamp(min=1), mask, atol=1e-6)
        assert torch.equal(part[total <= 1], mask[total <= 1]), "untouched where nothing overlaps"
    assert all(torch.equal(a, b) for a, b in zip(masks, given, strict=True))
    assert with_rest or (regions.inside[total >= 1] == 1).all(), "exactly one, so that no content shines through"
    assert with_rest or (regions.inside[total == 0] == 0).all()
    left = regions.styles[-1] if with_rest else regions.rest
    assert torch.allclose(left, (1 - total).clamp(min=0), atol=1e-6)
    assert not with_rest or not regions.rest.any()


def test_shares_among_the_styles_sum_to_one_where_there_is_any():
    regions = share([row(0.25, 1, 0, 1), row(0.25, 0, 0, 1)], 1, 4)
    among = regions.among_styles()
    assert torch.allclose(among[:, 0], torch.tensor([[0.5, 1, 0, 0.5], [0.5, 0, 0, 0.5]]))


@pytest.mark.parametrize(
    ("masks", "numbers"), [((None, None), (1, 2)), ((row(1), None, None), (2, 3)), ((None, row(1), None), (1, 3))]
)
def test_two_styles_without_a_mask_are_refused_by_number(masks, numbers):
    with pytest.raises(ValueError, match=f"style {numbers[0]} and style {numbers[1]} both have no mask") as error:
        share(masks, 1, 1)
    assert "LoRA Switch Schedule" in str(error.value)


def test_fusion_is_the_weighted_sum(seed):
    generator = torch.Generator().manual_seed(seed)
    predictions = [torch.randn(2, 4, 6, 9, generator=generator) for _ in range(4)]
    regions = share(random_masks(seed), 6, 9)
    shares = [*regions.styles, regions.rest]
    expected = torch.zeros(2, 4, 6, 9, dtype=torch.float64)
    for b in range(2):
        for c in range(4):
            for i in range(4):
                expected[b, c] += shares[i].double() * predictions[i][b, c].double()
    assert torch.allclose(fuse(predictions, shares).double(), expected, atol=1e-6)


def test_fusion_of_one_prediction_everywhere_is_that_prediction(seed):
    prediction, other = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(fuse([prediction, other], [torch.ones(3, 3), torch.zeros(3, 3)]), prediction)
    assert fuse([prediction.half()], [torch.ones(3, 3)]).dtype == torch.float16


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_fusion_wants_a_share_for_each(counts):
    predictions, shares = counts
    with pytest.raises(ValueError, match="zip"):
        fuse([torch.zeros(1, 4, 2, 2)] * predictions, [torch.ones(2, 2)] * shares)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_outside_the_content_stays_bit_for_bit(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    styled, content = (torch.randn(2, 4, 6, 9, generator=generator).to(dtype) for _ in range(2))
    inside = share(random_masks(seed, 1), 6, 9).inside
    latent = localize(styled, content, inside)
    outside, wholly = (inside == 0).expand_as(latent), (inside == 1).expand_as(latent)
    assert outside.any()
    assert wholly.any()
    assert torch.equal(latent[outside], content[outside])
    assert torch.equal(latent[wholly], styled[wholly])
    m = inside.double()
    expected = m * styled.double() + (1 - m) * content.double()
    assert torch.allclose(latent.double(), expected, atol=8 * torch.finfo(dtype).eps)
