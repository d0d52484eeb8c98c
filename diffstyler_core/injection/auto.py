"""Which layers to take when none are named: those that see of this picture what the paper's see of theirs."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from .sites import UNetLayout, format_layers

AUTO, ALL = "auto", "all"
"""How people write layers that are chosen for them, and all that there are."""

COARSEST = 16
"""Cells along the short side of the grid that the paper's feature layer sees: decoder layer 4 of SD1/SD2 at 512."""


class AutoLayers(NamedTuple):
    """feature, self_attention: decoder layers. grid: (height, width) in cells that the coarsest of them sees."""

    feature: tuple[int, ...]
    self_attention: tuple[int, ...]
    grid: tuple[int, int]

    def __str__(self) -> str:
        height, width = self.grid
        feature, attention = (format_layers(layers) or "none" for layers in self[:2])
        return f"layers auto: feature {feature}, self-attention {attention}; from a grid of {width} x {height} on"


def auto_layers(layout: UNetLayout, height: int, width: int) -> AutoLayers:
    """The layers for a latent of [height, width] cells.

    The paper (and Plug-and-Play before it) injects the features of decoder layer 4, the second ResBlock at 16 x 16,
    and the attention from there to the end, at 512 pixels. What a layer means hangs on the grid that it sees: at 8 x 8
    there is no structure left to keep. So it is the coarsest group of layers that sees at least 16 cells along the
    short side; of a picture too small for that, the finest. Attention is taken from the feature layer on; where no
    layer after it has any (SDXL's finest), that of the finest group that has.

    Raises ValueError for a UNet whose layers' strides are not known.
    """
    features = layout.layers("feature")
    if not features or any(layer not in layout.strides for layer in features):
        raise ValueError("layers: auto needs a UNet whose decoder layers and grids are known; name the layers instead.")
    groups = [(stride, tuple(layers)) for stride, layers in groupby(features, key=layout.strides.__getitem__)]
    fit = [group for group in groups if -(-min(height, width) // group[0]) >= COARSEST]
    stride, group = fit[0] if fit else groups[-1]
    feature = group[min(1, len(group) - 1)]
    attention = tuple(layer for layer in layout.layers("self-attention") if layer >= feature)
    grid = -(-height // stride), -(-width // stride)
    return AutoLayers((feature,), attention or _finest_attention(layout), grid)


def texture_layers(layout: UNetLayout, height: int, width: int) -> AutoLayers:
    """The attention of the finest group that has any, and no features: what a small network keeps content with.

    Measured on the demo checkpoint at 256 (demo/settings.md): nine tenths of the edges that the paper's layers add, for
    about a third of what they cost in style.
    """
    attention = _finest_attention(layout)
    stride = layout.strides[attention[-1]] if attention else 1
    return AutoLayers((), attention, (-(-height // stride), -(-width // stride)))


def _finest_attention(layout: UNetLayout) -> tuple[int, ...]:
    layers = layout.layers("self-attention")
    return tuple(layer for layer in layers if layout.strides[layer] == layout.strides[layers[-1]])


def fine_layers(layout: UNetLayout) -> tuple[int, ...]:
    """The self-attention layers of the two finest groups that have any: what StyleID takes of SD1/SD2, layers 6-11."""
    layers = layout.layers("self-attention")
    strides = sorted({layout.strides[layer] for layer in layers})[:2]
    return tuple(layer for layer in layers if layout.strides[layer] in strides)
