"""The inputs that Feature PCA and Feature Similarity share."""

from __future__ import annotations

from comfy_api.latest import io

from .. import sockets
from .widgets import strength_input


def feature_inputs(lora_needed: bool) -> list[io.Input]:
    """The inputs of both nodes, in their published order."""
    needed = "Wire this, second_model, or both." if lora_needed else "Optional: without it only the base is shown."
    return [
        io.Model.Input("model", tooltip="The base model, without a style LoRA."),
        sockets.Trajectory.Input("trajectory", tooltip="From DDIM Invert: the latent that every model looks at."),
        io.Conditioning.Input("source", tooltip="Prompt that the features are computed with; usually the empty one."),
        io.String.Input(
            "layers",
            default="2,5,7",
            tooltip="Decoder layers (output blocks) as on Capture: 2,5,7 (the paper's) or 0-11.",
        ),
        io.Int.Input(
            "timestep",
            default=540,
            min=0,
            max=999,
            tooltip="Training timestep t: 999 is noise, 0 the picture. The paper looks at 540. "
            "The trajectory's nearest step is taken, and named.",
        ),
        strength_input("lora_strength", "Strength of lora. It does not act on second_model."),
        io.Model.Input(
            "second_model",
            optional=True,
            tooltip="Another model of the same family to compare with, e.g. the base after Load LoRA.",
        ),
        sockets.LoraModel.Input(
            "lora",
            optional=True,
            tooltip=f"From Train Style LoRA or Load LoRA Model, to compare the base with. {needed}",
        ),
    ]
