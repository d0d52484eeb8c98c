"""Drawing with PIL for pictures shown on nodes: colours, letters that stay readable, and IMAGE tensors."""

from __future__ import annotations

import bisect

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]
PALETTE: tuple[Colour, ...] = (
    (240, 150, 40),
    (70, 165, 240),
    (90, 200, 110),
    (225, 95, 165),
    (235, 215, 70),
    (150, 120, 235),
    (235, 85, 70),
    (80, 205, 200),
)
"""Distinct on a dark page, and for most colour-blind eyes."""
INK: Colour = (225, 225, 225)
DARK: Colour = (20, 20, 20)


LONGEST = 1000
"""Letters of a text that are looked at: more fit on no picture of this pack."""


def colour_of(index: int) -> Colour:
    """The colour of style or LoRA ``index`` (from 0); darker from the ninth on."""
    shade = 0.6 ** (index // len(PALETTE))
    red, green, blue = PALETTE[index % len(PALETTE)]
    return round(red * shade), round(green * shade), round(blue * shade)


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """PIL's own font: Latin letters only."""
    return ImageFont.load_default(size)


def write_outlined(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: float) -> None:
    """Text centred at (x, y), light with a dark outline: readable on any picture."""
    width = max(1, round(size / 10))
    draw.text(at, text, (255, 255, 255), font(size), anchor="mm", stroke_width=width, stroke_fill=DARK)


def fit_text(draw: ImageDraw.ImageDraw, text: str, size: float, width: float) -> str:
    """The text in one line, cut with '...' where it is wider than ``width`` pixels; '?' for letters the font lacks."""
    text = text[:LONGEST].replace("\n", " ").encode("latin-1", "replace").decode("latin-1")
    if draw.textlength(text, font(size)) <= width:
        return text
    fitting = bisect.bisect_right(
        range(1, len(text)), width, key=lambda letters: draw.textlength(text[:letters] + "...", font(size))
    )
    return text[:fitting] + "..." if fitting else ""


def to_image(picture: Image.Image) -> Tensor:
    """A PIL picture as IMAGE [1, H, W, 3], values 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)[None]


def to_picture(image: Tensor) -> Image.Image:
    """One picture [H, W, 3] with values 0..1 as a PIL picture."""
    pixels = (image.clamp(0.0, 1.0) * 255.0).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.numpy())
