"""Features as colours: a row for each layer, a column for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .page import LETTERS, SMALL, dark_style, new_page, one_line, place, render, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE, GAP, LABELS, TOP, END = 288, 8, 136, 44, 68
LEAST = 104
"""Height of a row that its three words need."""
FOOT = ("one basis and one range of colours", "per layer, for all columns; %: variance shown")
LONGEST = 24
"""Letters of a column's name."""


class LayerPicture(NamedTuple):
    """One layer in colours.

    tiles: per column the three leading components as RGB [H, W, 3], 0..1. shares: their parts of the variance.
    """

    layer: int
    tiles: tuple[Tensor, ...]
    shares: tuple[float, ...]


def draw_layers(names: list[str], rows: list[LayerPicture]) -> Tensor:
    """IMAGE [1, H, W, 3]. Features' pixels are shown as squares."""
    with dark_style():
        return render(layers_page(names, rows))


def layers_page(names: list[str], rows: list[LayerPicture]) -> Figure:
    """The grid within ``dark_style``, an axes for each tile, row by row."""
    height, width = rows[0].tiles[0].shape[:2]
    down = max(round(TILE * height / width), LEAST) + GAP
    page = new_page(LABELS + (TILE + GAP) * len(names), TOP + down * len(rows) + END)
    for column, name in enumerate(names):
        write(page, LABELS + (TILE + GAP) * column + TILE / 2, TOP / 2, one_line(name, LONGEST), ha="center")
    for number, row in enumerate(rows):
        _draw_row(page, row, TOP + down * number, down - GAP)
    for number, words in enumerate(FOOT):
        write(page, 14, TOP + down * len(rows) + 16 + 28 * number, words, SMALL)
    return page


def _draw_row(page: Figure, row: LayerPicture, top: float, tall: float) -> None:
    height, width = row.tiles[0].shape[:2]
    words = (f"layer {row.layer}", f"{width} x {height}", f"{100 * sum(row.shares):.0f} %")
    for line, text in enumerate(words):
        write(page, LABELS - 14, top + tall / 2 + 32 * (line - 1), text, LETTERS, ha="right")
    for column, tile in enumerate(row.tiles):
        axes = place(page, LABELS + (TILE + GAP) * column, top, TILE, tall)
        axes.imshow(tile.numpy(), interpolation="nearest")
