"""Outside the mask the decoded picture is the autoencoder's own reconstruction of the content."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import numpy as np
import pytest
import torch
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / "demo"
LEVEL = 1 / 255
REACH = 40
"""Pixels from the mask's border within which the demo checkpoint's decoder may change a pixel by a grey level."""


@pytest.fixture(scope="module")
def demo(pack):
    with torch.inference_mode():
        yield comfy.sd.load_checkpoint_guess_config(str(DEMO / "diffstyler-demo.safetensors"), output_clip=False)


def picture(name: str, size: int = 256) -> torch.Tensor:
    with Image.open(DEMO / "pictures" / name) as file:
        pixels = np.asarray(file.convert("RGB").resize((size, size)), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None]


def test_decoded_pixels_away_from_the_border_are_the_reconstruction(pack, demo, measured):
    """The region's latent is another picture's: the strongest disturbance that a style could make."""
    vae = demo[2]
    content, other = (vae.encode(picture(name)) for name in ("content_astronaut.jpg", "style_mosaic.jpg"))
    inside = torch.zeros(32, 32)
    inside[:, :10] = 1.0
    mixed = pack.core.styles.regions.localize(other, content, inside)
    difference = (vae.decode(mixed) - vae.decode(content)).abs().amax((0, 1, 3))  # [W]
    reached = (difference > LEVEL).nonzero().max().item() - 79
    measured("pixels beyond the border that change by more than 1/255", reached, at_most=REACH)
    assert reached > 0, "the decoder reaches over the border: this would not be the real decoder"
    measured("largest change farther away, in 1/255", difference[80 + REACH :].max().item() * 255, at_most=1.0)
    assert difference[:80].max() > 0.1
