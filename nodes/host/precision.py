"""Number formats by the names that widgets give them."""

from __future__ import annotations

import comfy.model_management as management
import torch

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def training_dtype(precision: str) -> torch.dtype:
    """The number format of the frozen weights and activations; 'auto' is bf16 on GPUs that have it, else fp32."""
    if precision != "auto":
        return PRECISIONS[precision]
    device = management.get_torch_device()
    return torch.bfloat16 if management.should_use_bf16(device) and device.type != "cpu" else torch.float32
