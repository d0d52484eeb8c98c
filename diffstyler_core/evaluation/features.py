"""Which step features are taken at, and that they are numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def nearest_step(timesteps: Sequence[int], t: int, table: int = 1000) -> int:
    """The step whose timestep is nearest to t; of two, the noisier one.

    Raises ValueError when t is no training timestep.
    """
    if not 0 <= t < table:
        raise ValueError(f"timestep must lie in 0..{table - 1}, got {t}: 0 is the picture, the paper looks at 540.")
    return min(range(len(timesteps)), key=lambda step: abs(timesteps[step] - t))


def require_finite(features: Tensor) -> None:
    """Raises ValueError for features that hold a NaN or infinity."""
    if not torch.isfinite(features).all():
        raise ValueError(
            "the features hold values that are not finite (NaN or infinity): the model overflowed. "
            "Start ComfyUI with --fp32-unet, or check the model and its LoRA."
        )
