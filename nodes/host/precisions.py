"""Number formats by the names that widgets give them."""

from __future__ import annotations

import torch

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
