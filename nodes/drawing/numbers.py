"""Numbers written on a picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


class Number(NamedTuple):
    """What is written, and the pixel (x, y) in its middle."""

    value: int
    at: tuple[float, float]


def write_numbers(picture: Tensor, numbers: Iterable[Number], size: float) -> Tensor:
    """The picture [H, W, 3] in 0..1 with the numbers, so many pixels high, white with a dark outline."""
    drawn = Image.fromarray((picture.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy())
    pen, font, width = ImageDraw.Draw(drawn), ImageFont.load_default(size), max(1, round(size / 10))
    for number in numbers:
        pen.text(number.at, str(number.value), "white", font, anchor="mm", stroke_width=width, stroke_fill="black")
    return torch.from_numpy(np.array(drawn, dtype=np.float32) / 255.0)
