"""CLIP's figures of a picture and words, from embeddings whose angles are known."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.metrics.available import NotAvailable
from diffstyler_core.metrics.language import clip_direction, clip_similarity


def at(degrees, length=1.0):
    angle = math.radians(degrees)
    return torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64) * length


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 150.0, 180.0])
def test_similarity_is_the_cosine_whatever_the_lengths(degrees):
    assert clip_similarity(at(10.0, 3.0), at(10.0 + degrees, 0.2)) == pytest.approx(math.cos(math.radians(degrees)))


@pytest.mark.parametrize("turn", [0.0, 40.0, 90.0, 180.0])
def test_direction_is_the_cosine_of_two_chords(turn):
    """Two unit vectors apart by 20 degrees: the chord between them stands upon their bisector."""
    pictures, words = (at(0.0, 5.0), at(20.0, 2.0)), (at(turn, 0.1), at(turn + 20.0, 7.0))
    assert clip_direction(*pictures, *words) == pytest.approx(math.cos(math.radians(turn)))


def test_no_difference_has_no_direction():
    for pair in ((at(0.0), at(0.0, 2.0), at(1.0), at(2.0)), (at(1.0), at(2.0), at(0.0), at(0.0))):
        with pytest.raises(NotAvailable, match="CLIP sees no difference"):
            clip_direction(*pair)
