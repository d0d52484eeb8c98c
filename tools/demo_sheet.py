"""Pictures side by side under their names."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

_GAP = 12
_LABEL = 34
_FOOTER = 18
_MIN_HEIGHT = 256


@dataclass(frozen=True)
class Panel:
    label: str
    data: bytes  # the encoded picture

    def picture(self) -> Image.Image:
        with Image.open(io.BytesIO(self.data)) as file:
            return ImageOps.exif_transpose(file).convert("RGB")

    def save(self, folder: Path) -> Path:
        path = folder / (re.sub(r"[^\w .-]", "_", self.label) + ".png")
        self.picture().save(path)
        return path


def png_of(picture: Image.Image) -> bytes:
    """A picture, encoded."""
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def save_sheet(panels: Sequence[Panel], path: Path, footer: str = "") -> None:
    """One row of pictures, all as high as the lowest of them (256 at least), each with its label above."""
    if not panels:
        raise ValueError("panels is empty: the workflow has no picture that could be shown; end it with Save Image")
    pictures = [panel.picture() for panel in panels]
    height = max(_MIN_HEIGHT, min(picture.height for picture in pictures))
    sized = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
    width = sum(picture.width for picture in sized) + _GAP * (len(sized) + 1)
    foot = _FOOTER if footer else 0
    sheet = Image.new("RGB", (width, height + _LABEL + 2 * _GAP + foot), "white")
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for panel, picture in zip(panels, sized, strict=True):
        draw.text((left, _GAP), panel.label, fill="black", font=ImageFont.load_default(18))
        sheet.paste(picture, (left, _GAP + _LABEL))
        left += picture.width + _GAP
    if footer:
        draw.text((_GAP, sheet.height - foot - 2), footer, fill="dimgray", font=ImageFont.load_default(12))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def save_grid(rows: Sequence[Sequence[Panel]], path: Path, side: int = 176) -> None:
    """Rows of squares, the labels above them; the first of each row has its own."""
    gap, line = 4, 16
    width = max(map(len, rows)) * (side + gap) + gap
    sheet = Image.new("RGB", (width, len(rows) * (side + 2 * line + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for r, row in enumerate(rows):
        top = gap + r * (side + 2 * line + gap)
        for c, panel in enumerate(row):
            left = gap + c * (side + gap)
            draw.text((left, top), "\n".join(textwrap.wrap(panel.label, 26)[:2]), fill="black", font=font)
            picture = ImageOps.fit(panel.picture(), (side, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left, top + 2 * line))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def save_thumbnail(content: Panel, result: Panel, sentence: str, path: Path, side: int = 512) -> None:
    """A square JPEG for the template browser, which knows no description: result, content in its corner, a sentence."""
    inset, edge, strip = side * 3 // 10, 4, 92
    thumbnail = _square(result, side)
    corner = ImageOps.expand(_square(content, inset), edge, "white")
    thumbnail.paste(corner, (_GAP, _GAP))
    shade = Image.new("RGB", (side, strip), "black")
    thumbnail.paste(shade, (0, side - strip), Image.new("L", shade.size, 190))
    lines = "\n".join(textwrap.wrap(sentence, 40))
    font = ImageFont.load_default(24)
    middle = (side // 2, side - strip // 2)
    ImageDraw.Draw(thumbnail).multiline_text(middle, lines, fill="white", font=font, anchor="mm", align="center")
    thumbnail.save(path, quality=88)


def _square(panel: Panel, side: int) -> Image.Image:
    return ImageOps.fit(panel.picture(), (side, side), Image.Resampling.LANCZOS)
