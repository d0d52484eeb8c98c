"""matplotlib as the pack draws with it: a dark page in pixels, without pyplot, and the host's settings left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .palette import FAINT, INK, PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS, SMALL = 22, 18
"""Heights of letters in pixels. A node is 320 to 400 pixels wide, half of a chart."""
DPI = 72
"""Dots an inch at which a point of text is a pixel."""
FONT = "DejaVu Sans"
STYLE: dict[str, Any] = {
    "figure.dpi": DPI, "figure.facecolor": PAGE, "font.family": FONT, "font.size": LETTERS,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": PAGE, "axes.edgecolor": FAINT, "axes.axisbelow": True, "axes.grid.axis": "y", "axes.grid": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.titlelocation": "left", "axes.titlesize": LETTERS, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
    "grid.color": FAINT, "lines.linewidth": 3.5, "legend.frameon": False, "legend.borderpad": 0,
    "figure.constrained_layout.w_pad": 14 / DPI, "figure.constrained_layout.h_pad": 8 / DPI,
}  # fmt: skip


@contextmanager
def dark_style() -> Iterator[None]:
    """matplotlib's defaults with the pack's colours, whatever a user or another pack set; theirs come back after it."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def new_page(width: int, height: int, **settings: Any) -> Figure:
    """An empty figure of this size in pixels. Call it, and draw on it, within ``dark_style``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure((width / DPI, height / DPI), **settings)
    FigureCanvasAgg(page)
    return page


def place(page: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without lines and marks in a rectangle of the page, in pixels from its top left corner."""
    wide, high = page.get_size_inches() * DPI
    axes = page.add_axes((left / wide, 1.0 - (top + height) / high, width / wide, height / high))
    axes.set_axis_off()
    return axes


def write(page: Figure, left: float, top: float, text: str, size: float = LETTERS, **how: Any) -> None:
    """Text with its first line's middle at (left, top), in pixels from the top left corner."""
    wide, high = page.get_size_inches() * DPI
    page.text(left / wide, 1.0 - top / high, text, fontsize=size, **{"va": "center", **how})


def render(page: Figure) -> Tensor:
    """The page as IMAGE [1, H, W, 3], values 0..1."""
    canvas: Any = page.canvas
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba(), dtype=np.float32) / 255.0
    return torch.from_numpy(pixels[None, ..., :3].copy())


def one_line(text: str, letters: int) -> str:
    """A user's text in one line of at most so many letters: '?' for those the font lacks, '$' as it stands."""
    from matplotlib import font_manager

    known = font_manager.get_font(font_manager.findfont(FONT)).get_charmap()
    short = text if len(text) <= letters else text[: letters - 3] + "..."
    shown = "".join(letter if ord(letter) in known else "?" for letter in short.replace("\n", " "))
    return shown.replace("$", r"\$")
