"""What the driver of a GPU would say, for the device that is not there: which is in use, what it is, its memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import comfy.model_management as management
import torch
from absent_device import CUDA

MEMORY = 24e9


def answer(monkeypatch: Any, free: float = MEMORY) -> None:
    """The host takes the absent device for its GPU, with so many bytes for its models."""
    free_on_cpu = management.get_free_memory

    def free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
        if dev is not None and dev.type == "cpu":
            return free_on_cpu(dev, torch_free_too)
        left = free - sum(loaded.model_loaded_memory() for loaded in management.current_loaded_models if loaded.model)
        return (left, 0.0) if torch_free_too else left

    monkeypatch.setattr(management, "cpu_state", management.CPUState.GPU)
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
    monkeypatch.setattr(management, "get_torch_device", lambda: CUDA)
    monkeypatch.setattr(management, "get_free_memory", free_memory)
    monkeypatch.setattr(management, "get_total_memory", lambda dev=None, torch_total_too=False: MEMORY)
    properties = SimpleNamespace(major=8, minor=6, total_memory=MEMORY, name="a GPU that is not there")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: CUDA.index)
    for name in ("synchronize", "set_device"):
        monkeypatch.setattr(torch.cuda, name, lambda *device: None)
