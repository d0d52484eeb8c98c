"""Inputs that every node which trains has."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.training.picture_name import TOKEN


def steps_input(default: int) -> io.Int.Input:
    """How many steps are trained."""
    return io.Int.Input(
        "steps", default=default, min=1, max=100_000, tooltip="Training steps, each one forward and backward."
    )


def rate_input(default: float) -> io.Float.Input:
    """AdamW's learning rate."""
    return io.Float.Input(
        "learning_rate",
        default=default,
        min=0.0,
        max=1.0,
        step=1e-5,
        round=1e-8,
        tooltip="AdamW, constant. Lower it when the loss explodes. 0: what suits the model, which the node then says.",
    )


def seed_input(decides: str) -> io.Int.Input:
    """The seed of a training."""
    return io.Int.Input(
        "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip=f"Decides {decides}."
    )


def resolution_input() -> io.Int.Input:
    """The side of the square that is trained on."""
    return io.Int.Input(
        "resolution",
        default=0,
        min=0,
        max=4096,
        step=8,
        tooltip="Side in pixels, 64 or more: the picture is resized and cropped to a square of it. 0: the size that "
        "the model was trained on, 512 for SD1, 1024 for SDXL.",
    )


def batch_input() -> io.Int.Input:
    """Draws per step."""
    return io.Int.Input(
        "batch_size", default=1, min=1, max=64, tooltip="Pictures (or noise draws) per step.", advanced=True
    )


def checkpointing_input() -> io.Boolean.Input:
    """Gradient checkpointing."""
    return io.Boolean.Input(
        "gradient_checkpointing",
        default=False,
        tooltip="Recomputes activations: less memory, about a third slower.",
        advanced=True,
    )


def precision_input(trained: str) -> io.Combo.Input:
    """The number format of what is frozen. trained: what is not."""
    return io.Combo.Input(
        "precision",
        options=["auto", "fp32", "bf16"],
        default="auto",
        tooltip=f"Format of the frozen weights; the {trained} itself always trains in fp32.",
        advanced=True,
    )


def preview_input(what: str) -> io.Int.Input:
    """How often a preview is rendered."""
    return io.Int.Input(
        "preview_every",
        default=0,
        min=0,
        max=100_000,
        tooltip=f"Shows what the {what} makes of its prompt every N steps; 0 for never. Costs 10 UNet "
        "evaluations and a decoding each time.",
    )


def save_inputs(what: str, folder: str) -> list[io.Input]:
    """Whether what was trained is kept, and under which name."""
    return [
        io.Boolean.Input(
            "save", default=True, tooltip=f"Keep the {what} in models/{folder}. Off: only this graph has it."
        ),
        io.String.Input(
            "filename_prefix",
            default=f"DiffStyler/{TOKEN}",
            tooltip=f"Name below models/{folder}; a hash of the request is added. {TOKEN} is the file name of the "
            "style picture, or 'style' where it comes from no file.",
        ),
    ]
