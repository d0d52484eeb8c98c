"""Crops that are ranked."""

from __future__ import annotations

import torch

from diffstyler_core.masks.crops import bounds, candidate_crops, large_enough


def disc(height=40, width=60, y=20, x=30, radius=12):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_a_crop_shows_the_object_alone_on_white():
    picture = torch.zeros(40, 60, 3)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[10:20, 10:50] = True
    picture[10:20, 10:50] = torch.tensor([1.0, 0.0, 0.0])
    (crop,) = candidate_crops(picture, mask[None], 32)
    assert torch.allclose(crop[16, 2:30], torch.tensor([1.0, 0.0, 0.0]), atol=0.01)  # as wide as the crop
    assert torch.allclose(crop[:10], torch.ones(3), atol=0.01)  # 4 : 1, centred
    assert torch.allclose(crop[22:], torch.ones(3), atol=0.01)


def test_no_candidates_give_no_crops():
    assert candidate_crops(torch.zeros(8, 8, 3), torch.zeros(0, 8, 8, dtype=torch.bool), 16).shape == (0, 16, 16, 3)


def test_bounds_and_size():
    mask = disc()
    assert bounds(mask) == (18, 8, 43, 33)
    assert large_enough(torch.stack([mask, disc(radius=5)])).tolist() == [True, False]
