"""The contact sheet of a comparison: the pictures of each result side by side, and its figures in a table below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...diffstyler_core.evaluation.metric import Figure
from ...diffstyler_core.evaluation.report import Row, rows_of, unavailable
from ...diffstyler_core.masks.outlines import inner_line, outer_line
from .page import LETTERS, SMALL, dark_style, new_page, one_line, place, render, write
from .palette import DIM, FAINT, INK, STRIPE, Colour

if TYPE_CHECKING:
    from matplotlib import figure
    from matplotlib.table import Table

TILE, GAP, ROW = 336, 12, 34
NAMES, BETTER, AGAINST, CELL = 356, 100, 190, 130
"""Widths of the table's columns; cells get what is left where the pictures are wider."""
STYLES = 3
"""Style pictures that are shown; the table holds the figures of all."""
MOST = 8
"""Results that are shown."""


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
    inside, width = mask >= 0.5, max(1, round(min(picture.shape[:2]) / 150))
    dark = torch.where(outer_line(inside, width)[..., None], 0.15 * picture, picture)
    return torch.where(inner_line(inside, width)[..., None], 0.6 + 0.4 * picture, dark)


def draw_sheets(sheets: Sequence[Sheet]) -> Tensor:
    """IMAGE [1, H, W, 3]: all results below each other, eight at most."""
    with dark_style():
        pages = [sheet_page(sheet) for sheet in sheets[:MOST]]
        if len(sheets) > MOST:
            pages.append(_last_words(pages[0], f"{len(sheets) - MOST} more results are in the table only"))
        return torch.cat([render(page) for page in pages], dim=1)


def sheet_page(sheet: Sheet) -> figure.Figure:
    """Title, pictures, table, what is not available; within ``dark_style``. Its first axes are the pictures."""
    regions, rows = rows_of(sheet.figures)
    notes = unavailable(sheet.figures)
    width = max(GAP + (TILE + GAP) * len(sheet.tiles), NAMES + BETTER + AGAINST + CELL * len(regions) + 2 * GAP)
    top, high = 2 * ROW + tall_of(sheet.tiles) + GAP, ROW * (len(rows) + 1)
    page = new_page(width, top + high + GAP + ROW * len(notes) + GAP)
    write(page, GAP, ROW / 2, one_line(sheet.title, width // 12))
    for index, tile in enumerate(sheet.tiles):
        _draw_tile(page, tile, GAP + (TILE + GAP) * index, tall_of(sheet.tiles))
    _draw_table(page, top, regions, rows)
    for index, note in enumerate(notes):
        write(page, GAP, top + high + GAP + ROW * (index + 0.5), one_line(note, width // 9), SMALL, color=DIM)
    return page


def tall_of(tiles: Sequence[Tile]) -> int:
    """Pixels that the highest of the pictures takes in its square."""
    return max(round(TILE * min(1.0, tile.picture.shape[0] / tile.picture.shape[1])) or 1 for tile in tiles)


def _last_words(like: figure.Figure, text: str) -> figure.Figure:
    page = new_page(round(like.bbox.width), ROW)
    write(page, GAP, ROW / 2, text)
    return page


def _draw_tile(page: figure.Figure, tile: Tile, left: float, tall: float) -> None:
    write(page, left, 1.5 * ROW, tile.name, SMALL, color=DIM)
    axes = place(page, left, 2 * ROW, TILE, tall)
    axes.imshow(tile.picture.clamp(0.0, 1.0).numpy())
    axes.set_anchor("N")


def _draw_table(page: figure.Figure, top: float, regions: list[str], rows: list[Row]) -> None:
    from matplotlib.transforms import Bbox

    width = round(page.bbox.width) - 2 * GAP
    cell = (width - NAMES - BETTER - AGAINST) / max(1, len(regions))
    axes = place(page, GAP, top, width, ROW * (len(rows) + 1))
    table = axes.table(
        [[row.metric, row.better, row.against, *row.cells] for row in rows],
        colLabels=["", "better", "against", *regions],
        colWidths=[part / width for part in (NAMES, BETTER, AGAINST, *[cell] * len(regions))],
        bbox=Bbox.unit(),
    )
    _dress(table, width)
    axes.axhline(len(rows) / (len(rows) + 1), color=FAINT, linewidth=2)
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _dress(table: Table, width: int) -> None:
    """Words to the left, figures to the right; every second row on a lighter ground."""
    table.auto_set_font_size(False)
    for (row, column), cell in table.get_celld().items():
        cell.set(linewidth=0, facecolor=STRIPE if row and row % 2 == 0 else "none")
        cell.PAD = 6 / cell.get_width() / width  # a share of the cell's width
        cell.set_text_props(ha="left" if column < 3 else "right", color=_ink(row, column, cell.get_text().get_text()))
        cell.set_fontsize(LETTERS - 2)


def _ink(row: int, column: int, text: str) -> Colour:
    return DIM if row == 0 or column in (1, 2) or text == "n/a" else INK
