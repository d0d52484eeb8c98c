"""The contact sheet of a comparison: the pictures of each result side by side, and its figures in a table below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...diffstyler_core.masks.crops import outline
from ..host.evaluation.measures import STYLE, Figure
from .canvas import INK, Colour, fit_text, font, to_image, to_picture
from .schedule_chart import FAINT, PAGE

TILE, GAP, LETTERS, SMALL, FOOT, ROW = 336, 12, 26.0, 22.0, 18.0, 34
NAMES, BETTER, AGAINST, CELL = 356, 88, 176, 124
"""Widths of the table's columns; cells get what is left where the pictures are wider."""
STYLES = 3
"""Style pictures that are shown; the table holds the figures of all."""
MOST = 8
"""Results that are shown."""
STRIPE: Colour = (44, 44, 50)
DIM: Colour = (165, 165, 172)
REGIONS = ("whole", "inside", "outside", "left half", "right half")


class Tile(NamedTuple):
    """A picture [H, W, 3] with its name."""

    name: str
    picture: Tensor


class Sheet(NamedTuple):
    """One result: its pictures and figures."""

    title: str
    tiles: list[Tile]
    figures: list[Figure]


def tiles_of(result: Tensor, content: Tensor, mask: Tensor | None, styles: Sequence[Tensor]) -> list[Tile]:
    """Content (with the mask's outline), result, their difference, styles."""
    shown = content if mask is None else with_outline(content, mask)
    difference = (2.0 * (result - content).abs()).clamp(0.0, 1.0)
    tiles = [
        Tile("content, with mask" if mask is not None else "content", shown),
        Tile("result", result),
        Tile("difference, doubled", difference),
    ]
    several = len(styles) > 1
    return tiles + [Tile(f"style {i}" if several else "style", s) for i, s in enumerate(styles[:STYLES], 1)]


def with_outline(picture: Tensor, mask: Tensor) -> Tensor:
    """The picture with a light line inside the mask's edge at 0.5 and a dark one around it."""
    width = max(1, round(min(picture.shape[:2]) / 150))
    inside = mask >= 0.5
    dark = torch.where(outline(~inside, width)[..., None] & inside.any(), 0.15 * picture, picture)
    return torch.where(outline(inside, width)[..., None], 0.6 + 0.4 * picture, dark)


class Row(NamedTuple):
    """A line of the table."""

    metric: str
    better: str
    against: str
    cells: list[str]


def table_of(figures: Sequence[Figure]) -> tuple[list[str], list[Row]]:
    """(regions, a row for each metric and what it is measured against, with a cell for each region)."""
    regions = [name for name in REGIONS if any(f.region == name for f in figures)]
    there = {f.metric.key for f in figures if f.value is not None}
    rows: dict[tuple[str, str], Row] = {}
    for f in figures:
        against = (
            f.against if f.metric.key in there else STYLE if STYLE in f.against else f.against
        )  # one row says it for all styles
        empty = Row(f.metric.name, f.metric.better, against, ["n/a"] * len(regions))
        rows.setdefault((f.metric.key, against), empty).cells[regions.index(f.region)] = number(f.value)
    return regions, list(rows.values())


def unavailable(figures: Sequence[Figure]) -> list[str]:
    """'METRIC: not available: why', with the regions where it is not so for all of them."""
    every = {f.region for f in figures}
    missing: dict[tuple[str, str], list[str]] = {}
    for f in figures:
        if f.value is None:
            missing.setdefault((f.metric.name, f.why), []).append(f.region)
    lines: dict[tuple[str, str], list[str]] = {}
    for (name, why), regions in missing.items():
        where = "" if set(regions) == every else ", ".join(dict.fromkeys(regions))
        lines.setdefault((where, why), []).append(name)
    return [f"not available{f' {at}' if at else ''}: {', '.join(names)}: {why}" for (at, why), names in lines.items()]


def number(value: float | None) -> str:
    """Four digits; 'n/a' for a figure that is not there."""
    return "n/a" if value is None else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def draw_sheets(sheets: Sequence[Sheet]) -> Tensor:
    """IMAGE [1, H, W, 3]: all results below each other, eight at most."""
    drawn = [draw_sheet(sheet) for sheet in sheets[:MOST]]
    left_out = f"{len(sheets) - MOST} more results are in the table only" if len(sheets) > MOST else ""
    size = (max(d.width for d in drawn), sum(d.height for d in drawn) + (ROW + GAP if left_out else 0))
    page, top = Image.new("RGB", size, PAGE), 0
    for part in drawn:
        page.paste(part, (0, top))
        top += part.height
    ImageDraw.Draw(page).text((GAP, top), left_out, INK, font(SMALL))
    return to_image(page)


def draw_sheet(sheet: Sheet) -> Image.Image:
    """Title, pictures, table, what is not available."""
    regions, rows = table_of(sheet.figures)
    notes = unavailable(sheet.figures)
    columns = NAMES + BETTER + AGAINST + CELL * len(regions) + 2 * GAP
    width = max(GAP + (TILE + GAP) * len(sheet.tiles), columns)
    table = ROW + 8 + TILE + GAP + ROW
    page = Image.new("RGB", (width, table + ROW * (len(rows) + len(notes) + 1) + 3 * GAP), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text(
        (GAP, ROW / 2 + 4), fit_text(draw, sheet.title, LETTERS, width - 2 * GAP), INK, font(LETTERS), anchor="lm"
    )
    for index, tile in enumerate(sheet.tiles):
        _draw_tile(page, draw, tile, GAP + (TILE + GAP) * index, ROW + 8)
    _draw_table(draw, table, width, regions, rows)
    for index, note in enumerate(notes):
        top = table + ROW * (len(rows) + 1 + index) + GAP
        draw.text((GAP + 6, top), fit_text(draw, note, FOOT, width - 2 * GAP), DIM, font(FOOT))
    return page


def _draw_tile(page: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    picture = to_picture(tile.picture)
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    page.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, top + (TILE - size[1]) // 2))
    draw.text((left, top + TILE + GAP), fit_text(draw, tile.name, SMALL, TILE), INK, font(SMALL))


def _draw_table(draw: ImageDraw.ImageDraw, top: int, width: int, regions: list[str], rows: list[Row]) -> None:
    first = GAP + NAMES + BETTER + AGAINST
    cell = (width - GAP - first) / max(1, len(regions))
    _draw_row(draw, top, first, cell, Row("", "better", "against", regions), DIM)
    draw.line((GAP, top + ROW, width - GAP, top + ROW), FAINT, 2)
    for index, row in enumerate(rows, 1):
        if index % 2 == 0:
            draw.rectangle((GAP, top + ROW * index, width - GAP, top + ROW * (index + 1)), STRIPE)
        _draw_row(draw, top + ROW * index, first, cell, row, INK)


def _draw_row(draw: ImageDraw.ImageDraw, top: float, first: float, cell: float, row: Row, ink: Colour) -> None:
    y, left = top + ROW / 2, GAP + 6
    draw.text((left, y), fit_text(draw, row.metric, SMALL, NAMES - 12), ink, font(SMALL), anchor="lm")
    draw.text((left + NAMES, y), row.better, DIM, font(SMALL), anchor="lm")
    draw.text((left + NAMES + BETTER, y), fit_text(draw, row.against, SMALL, AGAINST), DIM, font(SMALL), anchor="lm")
    for index, words in enumerate(row.cells, 1):
        at = (first + cell * index - GAP, y)
        draw.text(at, words, DIM if words == "n/a" else ink, font(SMALL), anchor="rm")
