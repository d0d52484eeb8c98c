"""The pack in the real host, at the full size of the models that people have, on a CUDA device that is not there."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1] / "host"))
sys.path.insert(1, str(Path(__file__).parent))

from tests.host.conftest import host_folders, measured, pack, pytest_terminal_summary, seed  # noqa: F401 - sets up

# isort: split
import absent_device
import comfy.ldm.modules.attention as host_attention
import comfy.model_management as management
import driver
import pytest
import torch


@pytest.fixture
def absent(pack):  # noqa: F811
    """``with absent(free=24e9) as device:``: in there the host's GPU is one that is not there."""

    @contextmanager
    def entered(free: float = driver.MEMORY):
        with pytest.MonkeyPatch.context() as patch, torch.inference_mode(False), torch.no_grad():
            for module in (host_attention, pack.host.cross_attention.layers):
                for name in ("optimized_attention", "optimized_attention_masked"):
                    if hasattr(module, name):  # what the host takes on a GPU
                        patch.setattr(module, name, host_attention.attention_pytorch)
            driver.answer(patch, free)
            with absent_device.absent_device() as device:
                yield device
                management.current_loaded_models.clear()

    return entered
