"""Which layers 'auto' means on the UNets that people have, at the sizes that they use."""

from __future__ import annotations

import pytest

from diffstyler_core.injection.auto import auto_layers, fine_layers, texture_layers
from diffstyler_core.injection.sites import UNetLayout


def layout(levels: int, attention: range, deep: int = 1) -> UNetLayout:
    """Three ResBlocks a level, coarsest first."""
    layers = range(3 * levels)
    blocks = {"feature": dict.fromkeys(layers, 1), "self-attention": dict.fromkeys(attention, deep)}
    return UNetLayout(blocks, {layer: 2 ** (levels - 1 - layer // 3) for layer in layers})


SD, SDXL = layout(4, range(3, 12)), layout(3, range(6), deep=2)


@pytest.mark.parametrize(
    ("unet", "pixels", "feature", "attention", "grid"),
    [
        (SD, 512, 4, range(4, 12), 16),  # the paper's own
        (SD, 768, 4, range(4, 12), 24),
        (SD, 1024, 1, range(3, 12), 16),
        (SD, 256, 7, range(7, 12), 16),  # the demo checkpoint
        (SD, 128, 10, range(10, 12), 16),
        (SD, 64, 10, range(10, 12), 8),
        (SDXL, 1024, 1, range(1, 6), 32),
        (SDXL, 512, 1, range(1, 6), 16),
        (SDXL, 256, 4, range(4, 6), 16),
        (SDXL, 128, 7, range(3, 6), 16),  # no attention at its finest level
    ],
)
def test_auto_is_the_papers_layers_by_the_grid_that_they_see(unet, pixels, feature, attention, grid):
    auto = auto_layers(unet, pixels // 8, pixels // 8)
    assert auto.feature == (feature,)
    assert auto.self_attention == tuple(attention)
    assert auto.grid == (grid, grid)


def test_the_short_side_decides():
    assert str(auto_layers(SD, 32, 128)) == "layers auto: feature 7, self-attention 7-11; from a grid of 64 x 16 on"
    assert auto_layers(SD, 33, 128).grid == (17, 64), "odd grids are rounded up, as the host's convolutions do"


def test_training_free_styles_take_the_finer_half():
    assert fine_layers(SD) == tuple(range(6, 12)), "StyleID's"
    assert fine_layers(SDXL) == tuple(range(6))
    assert fine_layers(UNetLayout({}, {})) == ()


def test_a_unet_of_unknown_grids_is_refused():
    with pytest.raises(ValueError, match="auto needs a UNet whose decoder layers and grids are known"):
        auto_layers(UNetLayout({"feature": {0: 1}}), 64, 64)


def test_a_small_network_keeps_content_with_its_finest_attention():
    assert texture_layers(SD, 32, 40) == ((), (9, 10, 11), (32, 40))
    assert texture_layers(SDXL, 32, 40) == ((), (3, 4, 5), (16, 20))
    assert texture_layers(UNetLayout({}, {}), 32, 40) == ((), (), (32, 40))
