"""Feature PCA: what the decoder's layers see, as colours (DiffStyler 2026, fig. 3)."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.evaluation.components import colours, principal_components
from ...diffstyler_core.lora.schedule import Lora
from .. import sockets
from ..drawing.layer_grid import LayerPicture, draw_layers
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.sampling.features import FeatureRequest, evaluate_features
from ..host.types import ModelPatcher
from ..inputs.features import feature_inputs


def layer_picture(layer: int, features: list[Tensor]) -> LayerPicture:
    """Components of several features [1, C, H, W], fitted on all together: the same colour means the same feature."""
    height, width = features[0].shape[-2:]
    vectors = [feature[0].flatten(1).T for feature in features]  # [H W, C]
    found = principal_components(torch.cat(vectors), 3)
    tiles = colours([found.scores(part) for part in vectors])
    return LayerPicture(layer, tuple(tile.reshape(height, width, 3) for tile in tiles), found.shares)


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
            category=sockets.EVALUATE,
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
        features = evaluate_features(
            FeatureRequest(model, trajectory, source, layers, timestep, lora_strength, second_model, lora)
        )
        models = features.models
        rows = [layer_picture(layer, [of[layer] for of in models.values()]) for layer in models["base"]]
        drawn = draw_layers(list(models), rows)
        text = "\n".join([*features.notes, *(describe(row) for row in rows)])
        return host_text.output(drawn, text, text=text, picture=drawn)
