"""A style: what acts (a LoRA or a switch of LoRAs), with which prompt, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .lora_schedule import Lora, LoraSchedule
from .masks import one_mask, resize_by_area, shape_mask
from .regions import Regions, share


class Style(NamedTuple):
    """One region's style (DiffStyler 2026, eq. 8: theta + d_i, c_i, M_i).

    lora: a LoRA for all steps, or a schedule of LoRAs. strength: of it; times a schedule entry's own.
    positive: its prompt's conditioning, opaque here. mask: [H, W] in 0..1 of any resolution; None: the rest of
    the picture.
    """

    lora: Lora | LoraSchedule
    positive: object
    strength: float = 1.0
    mask: Tensor | None = None


Styles = tuple[Style, ...]


def add_style(styles: Styles, style: Style) -> Styles:
    """The chain with one more style. Raises ValueError for a mask that is none, or a second style without one."""
    number = len(styles) + 1
    if style.mask is None:
        share([None] * sum(s.mask is None for s in (*styles, style)), 1, 1)
        return (*styles, style)
    return (*styles, style._replace(mask=one_mask(style.mask, f"mask of style {number}")))


def regions_of(
    styles: Sequence[Style], latent: tuple[int, int], picture: tuple[int, int], grow: int = 0, feather: int = 0
) -> Regions:
    """The styles' shares at ``latent`` (height, width), masks grown and feathered in pixels of ``picture``."""

    def at_latent(mask: Tensor) -> Tensor:
        return resize_by_area(shape_mask(mask, *picture, grow, feather), *latent)

    return share([None if s.mask is None else at_latent(s.mask) for s in styles], *latent)
