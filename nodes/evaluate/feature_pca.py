"""Feature PCA: what the decoder's layers see, as colours (DiffStyler 2026, fig. 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from PIL import Image, ImageDraw
from torch import Tensor

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.evaluation.analysis import colours, principal_components
from ...diffstyler_core.lora.schedule import Lora
from ..drawing.canvas import INK, fit_text, font, to_image, to_picture
from ..drawing.schedule_chart import LETTERS, PAGE
from ..host import text as host_text
from ..host.inputs import Conditioning
from ..inputs.features import ANALYSIS, Wired, feature_inputs, look

TILE, GAP, LABELS, TOP, END = 288, 8, 136, 44, 68
LEAST = 104
"""Height of a row that its three words need."""
FOOT = ("one basis and one range of colours", "per layer, for all columns; %: variance shown")


class LayerPicture(NamedTuple):
    """One layer in colours.

    tiles: per column the three leading components as RGB [H, W, 3], 0..1. shares: their parts of the variance.
    """

    layer: int
    tiles: tuple[Tensor, ...]
    shares: tuple[float, ...]


def layer_picture(layer: int, features: list[Tensor]) -> LayerPicture:
    """Components of several features [1, C, H, W], fitted on all together: the same colour means the same feature."""
    height, width = features[0].shape[-2:]
    vectors = [feature[0].flatten(1).T for feature in features]  # [H W, C]
    found = principal_components(torch.cat(vectors), 3)
    tiles = colours([found.scores(part) for part in vectors])
    return LayerPicture(layer, tuple(tile.reshape(height, width, 3) for tile in tiles), found.shares)


def draw_layers(names: list[str], rows: list[LayerPicture]) -> Tensor:
    """IMAGE [1, H, W, 3]: a row for each layer, a column for each model. Features' pixels are shown as squares."""
    height, width = rows[0].tiles[0].shape[:2]
    tall = max(1, round(TILE * height / width))
    down = max(tall, LEAST) + GAP
    size = (LABELS + (TILE + GAP) * len(names), TOP + down * len(rows) + END)
    page = Image.new("RGB", size, PAGE)
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(names):
        at = (LABELS + (TILE + GAP) * column + TILE / 2, TOP / 2)
        draw.text(at, fit_text(draw, name, LETTERS, TILE), INK, font(LETTERS), anchor="mm")
    for number, row in enumerate(rows):
        top = TOP + down * number + (down - GAP - tall) // 2
        _label(draw, row, top + tall / 2)
        for column, tile in enumerate(row.tiles):
            drawn = to_picture(tile).resize((TILE, tall), Image.Resampling.NEAREST)
            page.paste(drawn, (LABELS + (TILE + GAP) * column, top))
    for number, words in enumerate(FOOT):
        draw.text((14, size[1] - END + 6 + 28 * number), fit_text(draw, words, 20, size[0] - 28), INK, font(20))
    return to_image(page)


def _label(draw: ImageDraw.ImageDraw, row: LayerPicture, middle: float) -> None:
    height, width = row.tiles[0].shape[:2]
    words = (f"layer {row.layer}", f"{width} x {height}", f"{100 * sum(row.shares):.0f} %")
    for line, text in enumerate(words):
        draw.text((LABELS - 14, middle + 32 * (line - 1)), text, INK, font(LETTERS), anchor="rm")


def describe(row: LayerPicture) -> str:
    """The components' parts of the variance."""
    parts = " + ".join(f"{100 * share:.1f}" for share in row.shares)
    return f"layer {row.layer}: {parts} = {100 * sum(row.shares):.1f} % of the variance"


class FeaturePCA(io.ComfyNode):
    """Principal components of decoder features, base and LoRA side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_FeaturePCA",
            display_name="Feature PCA",
            category=ANALYSIS,
            description="Shows what decoder layers see at one timestep: the three leading principal components of "
            "their features as red, green and blue, for the base model and beside it for a LoRA.",
            search_aliases=[
                "pca",
                "principal components",
                "feature visualization",
                "visualize features",
                "unet features",
                "diffstyler",
            ],
            inputs=feature_inputs(lora_needed=False),
            outputs=[
                io.Image.Output("picture", tooltip="A row for each layer, a column for each model."),
                io.String.Output("text", tooltip="Which step, and the components' parts of the variance."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        trajectory: Trajectory,
        source: Conditioning,
        layers: str,
        timestep: int,
        lora_strength: float,
        second_model: ModelPatcher | None = None,
        lora: Lora | None = None,
    ) -> io.NodeOutput:
        looked = look(Wired(model, trajectory, source, layers, timestep, lora_strength, second_model, lora))
        columns = looked.columns
        rows = [layer_picture(layer, [column[layer] for column in columns.values()]) for layer in columns["base"]]
        drawn = draw_layers(list(columns), rows)
        text = "\n".join([*looked.words, *(describe(row) for row in rows)])
        return host_text.output(drawn, text, text=text, node=cls, picture=drawn)
