"""What of a training's settings is left to the model: its own picture size, and a learning rate that suits it."""

from __future__ import annotations

from typing import NamedTuple

from comfy.model_patcher import ModelPatcher

from ..model import is_demo, native_side


class Rates(NamedTuple):
    """AdamW's learning rates: of the paper for the models that people have, and of the small demo checkpoint."""

    usual: float
    demo: float


LORA, EMBEDDING, ATTENTION = Rates(2e-4, 6e-3), Rates(5e-3, 2e-2), Rates(1e-4, 1e-4)


class Suited(NamedTuple):
    """resolution: pixels along a side. words: what was chosen, for the node; empty where all was given."""

    resolution: int
    learning_rate: float
    words: str


def suited(model: ModelPatcher, resolution: int, learning_rate: float, rates: Rates) -> Suited:
    """Settings of a training on this model; those that are 0 are chosen for it.

    Raises ValueError for a model without a UNet decoder.
    """
    words = []
    if resolution == 0:
        resolution = native_side(model)
        words.append(f"resolution {resolution}")
    if learning_rate == 0.0:
        learning_rate = rates.demo if is_demo(model) else rates.usual
        words.append(f"learning rate {learning_rate:g}")
    return Suited(resolution, learning_rate, f"auto: {', '.join(words)}" if words else "")
