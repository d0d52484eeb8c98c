"""What is known of a training before it starts: its identity, and how large its file will be."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ....diffstyler_core.training.config import TrainConfig
from ..checks.conditioning import Conditioning
from ..identity import fingerprint, identity
from ..model import abar_of, prediction_of
from ..types import VAE, ModelPatcher


def request_of(
    model: ModelPatcher,
    vae: VAE,
    pictures: Tensor,
    conditioning: Conditioning | dict[str, Any],
    settings: dict[str, Any],
) -> str:
    """Hash of everything that determines the result. conditioning: the prompt, or what it is encoded from."""
    return identity(
        {
            "model": fingerprint(model),
            "schedule": [prediction_of(model), abar_of(model)],  # ModelSampling patches change no weight
            "vae": fingerprint(vae.patcher),
            "pictures": pictures,
            "conditioning": conditioning,
            "settings": settings,
            "method": 1,
        }
    )


def estimated_size(model: ModelPatcher, config: TrainConfig) -> int:
    """Bytes that the LoRA's file will need at most: fp32 down and up for every target."""
    suffixes = tuple(f".{t}.weight" for t in config.targets)
    shapes = [v.shape for k, v in model.model.state_dict().items() if ".attn" in k and k.endswith(suffixes)]
    return sum(4 * config.rank * (s[0] + s[1]) for s in shapes) + 1_000_000
