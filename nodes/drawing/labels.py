"""Numbers and names written on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


class Label(NamedTuple):
    """What is written, and the pixel (x, y) in its middle. name: half as large, below."""

    text: str
    at: tuple[float, float]
    name: str = ""


class Box(NamedTuple):
    """What a label takes of the picture, in pixels: its middle and its size."""

    x: float
    y: float
    width: float
    height: float

    def covers(self, other: Box) -> bool:
        """Whether two boxes have any pixel in common."""
        wide, high = (self.width + other.width) / 2, (self.height + other.height) / 2
        return abs(self.x - other.x) < wide and abs(self.y - other.y) < high


class Pen:
    """Writes white letters with a dark outline."""

    def __init__(self, picture: Image.Image, size: float) -> None:
        self._draw, self._size, self._wide = ImageDraw.Draw(picture), size, picture.width
        self._large, self._small = ImageFont.load_default(size), ImageFont.load_default(size / 2)

    def cut(self, name: str) -> str:
        """As much of a name as half of the picture's width holds."""
        room = self._wide / 2
        if self._draw.textlength(name, self._small) <= room:
            return name
        while name and self._draw.textlength(f"{name}...", self._small) > room:
            name = name[:-1]
        return f"{name}..." if name else ""

    def box(self, label: Label) -> Box:
        """What the label takes where it would lie, kept inside the picture's width."""
        width = max(self._size, self._draw.textlength(label.name, self._small))
        x = min(max(label.at[0], width / 2), self._wide - width / 2)
        return Box(x, label.at[1], width, 1.8 * self._size if label.name else self._size)

    def write(self, label: Label, x: float, y: float) -> None:
        """The label with the middle of its text at (x, y)."""
        rows = [
            (label.text, self._large, self._size, y),
            (label.name, self._small, self._size / 2, y + 0.9 * self._size),
        ]
        for text, font, size, height in rows:
            stroke = max(1, round(size / 10))
            self._draw.text((x, height), text, "white", font, anchor="mm", stroke_width=stroke, stroke_fill="black")


def write_labels(picture: Tensor, labels: Sequence[Label], size: float, apart: bool = False) -> Tensor:
    """The picture [H, W, 3] in 0..1 with the labels, their text so many pixels high.

    apart: none upon another; one that would cover another moves towards the picture's middle.
    """
    drawn = Image.fromarray((picture.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy())
    pen, taken = Pen(drawn, size), list[Box]()
    for label in (label._replace(name=pen.cut(label.name)) for label in labels):
        box = pen.box(label) if apart else Box(*label.at, size, size)
        aside = size if box.x < drawn.width / 2 else -size
        while apart and any(box.covers(other) for other in taken):
            box = box._replace(x=box.x + aside)
        taken.append(box)
        pen.write(label, box.x, box.y)
    return torch.from_numpy(np.array(drawn, dtype=np.float32) / 255.0)
