"""Nodes that pass a value on: to have a node run again, and to read the GPU's peak memory behind it."""

from __future__ import annotations

from typing import Any

import torch
from comfy.comfy_types import IO

from .told import told


class Again:
    """Hands a value on. With another number what lies behind it runs again, its peak memory counted anew."""

    RETURN_TYPES, FUNCTION, CATEGORY = (IO.ANY,), "run", "DiffStyler/verify"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (IO.ANY, {}), "number": ("INT", {"default": 0})}}

    def run(self, value: Any, number: int) -> tuple[Any]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        return (value,)


class Peak:
    """The most GPU memory, in bytes, that torch held since Again; none without CUDA."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": (IO.ANY, {})}}

    def run(self, value: Any) -> dict[str, Any]:
        return told(gpu=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None)
