"""The part of a run in which a prompt acts: where none does, the host predicts zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher


def range_of(options: dict[str, Any]) -> tuple[float, float]:
    """The share of the run in which the host uses a prompt: its own range, within that of a scheduled CLIP."""
    start = max(options.get("start_percent") or 0.0, options.get("clip_start_percent") or 0.0)
    return start, min(options.get("end_percent", 1.0), options.get("clip_end_percent", 1.0))


def require_covered(conditioning: Sequence[Any], model: ModelPatcher, sigmas: Sequence[float], name: str) -> None:
    """Raises ValueError when timestep ranges leave a noise level of the run without a prompt: it would predict zeros.

    sigmas: the levels at which the UNet is asked, without the picture's.
    """
    percent = model.get_model_object("model_sampling").percent_to_sigma
    ranges = [range_of(options) for _, options in conditioning]
    bounds = [
        (math.inf if start <= 0.0 else percent(start), 0.0 if end >= 1.0 else percent(end)) for start, end in ranges
    ]
    for step, sigma in enumerate(sigmas):
        if not any(low <= sigma <= high for high, low in bounds):
            words = ", ".join(f"{100 * start:g} % to {100 * end:g} %" for start, end in ranges)
            raise ValueError(
                f"{name}: no prompt acts at step {step} of {len(sigmas)}, as the timestep ranges are {words}. "
                "Close the gap with another prompt for the rest (Conditioning Combine), or remove the range."
            )
