"""The cross-attention layers of a whole UNet by one number each, and which of them are coarse (DEADiff, poster)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .sites import format_layers

Block = tuple[str, int]
"""Where a layer is in LDM naming: ("input", l), ("middle", 0) or ("output", l)."""

COARSE_CELL = 4
"""Latent pixels (32 of the picture) a side of one query, from which on a layer is coarse."""


class CrossLayer(NamedTuple):
    """A spatial transformer, all of whose cross-attentions count as one layer.

    number: in the order of the UNet's evaluation, encoder, middle, decoder: 0-15 on SD1 and SD2 (6 the middle), 0-10
    on SDXL (4 the middle). depth: its transformer blocks. cell: latent pixels a side that one query stands for; the
    layer sees a grid of 1/cell of the latent.
    """

    number: int
    block: Block
    depth: int
    cell: int

    def __str__(self) -> str:
        return f"layer {self.number} ({self.block[0]} {self.block[1]}, 1/{self.cell} of the latent)"


CrossLayers = tuple[CrossLayer, ...]


def coarse_by_grid(layers: Sequence[CrossLayer]) -> tuple[int, ...]:
    """Numbers of all layers whose queries stand for 32 pixels of the picture or more: 4-9 on SD1, 2-7 on SDXL.

    Raises ValueError where there is none.
    """
    coarse = tuple(layer.number for layer in layers if layer.cell >= COARSE_CELL)
    if not coarse:
        raise ValueError(
            f"coarse layers: none of this UNet's cross-attention layers ({format_layers(numbers(layers))}) sees "
            f"1/{COARSE_CELL} of the latent or less. Choose 'custom' and name layers."
        )
    return coarse


def coarse_as_deadiff(layers: Sequence[CrossLayer]) -> tuple[int, ...]:
    """The counterpart of DEADiff's content layers, 4-8 of the 16 of SD1.5: 4-8 on SD1 and SD2, 2-6 on SDXL.

    Those are the coarse ones up to the second of the three in the decoder that see 1/4 of the latent: the last one
    there already reads the style. SDXL sees its 1/4 in two encoder layers, the middle and three of the decoder, too.
    """
    coarse = coarse_by_grid(layers)
    return coarse[:-1] if len(coarse) > 1 else coarse


def numbers(layers: Sequence[CrossLayer]) -> tuple[int, ...]:
    """The layers' numbers, ascending."""
    return tuple(sorted(layer.number for layer in layers))


def require_layers(wanted: Sequence[int], layers: Sequence[CrossLayer], name: str) -> None:
    """Raises ValueError that names the input and lists what exists, for a number that no layer has."""
    missing = tuple(number for number in wanted if number not in numbers(layers))
    if missing:
        raise ValueError(
            f"{name}: cross-attention layers {format_layers(missing)} do not exist in this UNet; it has "
            f"{format_layers(numbers(layers)) or 'none'}, counted through encoder, middle and decoder."
        )
