"""Example Picture: every picture with its mask."""

from __future__ import annotations

import pytest
import torch


def test_the_pictures_and_their_masks_fit(pack):
    names = pack.inputs.examples.example_names()
    assert {"content_astronaut.jpg", "content_coffee.jpg", "style_ink_drawing.jpg"} <= set(names)
    for name in names:
        image, mask = pack.examples.example.ExamplePicture.execute(name).args
        assert image.shape[0] == mask.shape[0] == 1
        assert image.shape[1:3] == mask.shape[1:]
        assert image.shape[3] == 3
        assert 0.0 <= image.min() < image.max() <= 1.0


@pytest.mark.parametrize(
    ("name", "low", "high"), [("astronaut", 0.3, 0.6), ("coffee", 0.3, 0.8), ("chelsea", 1.0, 1.0)]
)
def test_a_mask_covers_the_subject(pack, name, low, high):
    _, mask = pack.examples.example.ExamplePicture.execute(f"content_{name}.jpg").args
    assert low <= mask.mean() <= high
    assert low == 1.0 or ((mask > 0) & (mask < 1)).any(), "its edge is soft"
    assert torch.equal(mask.clamp(0, 1), mask)


@pytest.mark.parametrize("name", ["../pictures/content_astronaut.jpg", "mask_astronaut.png", ""])
def test_other_names_are_refused(pack, name):
    with pytest.raises(ValueError, match="there is no example"):
        pack.examples.example.ExamplePicture.execute(name)
