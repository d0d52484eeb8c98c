"""How captured tensors are kept: as CPU copies in a chosen precision that holds them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .sites import Site
from .taps import SiteTensors


class Keeper:
    """Copies tensors to the CPU in ``dtype``; in bf16 those that reach beyond fp16, which ends at 65504.

    kept, widened: how many tensors were copied, and how many of them into bf16 for that reason.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.kept = 0
        self.widened = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """A copy that nothing else holds."""
        self.kept += 1
        copied = _copied(tensor, self.dtype)
        if self.dtype != torch.float16 or _finite(copied):
            return copied
        self.widened += 1
        return _copied(tensor, torch.bfloat16)


def require_finite(step: int, taken: Mapping[Site, SiteTensors]) -> None:
    """Raises ValueError that names the first site of an evaluation where the model gave NaN or Inf."""
    for site, tensors in taken.items():
        if not all(_finite(t) for t in tensors):
            raise ValueError(
                f"model: its UNet gave NaN or Inf at step {step}, {site}. If it runs in fp16, start ComfyUI with "
                "--bf16-unet or --force-fp32; otherwise look at the model's file and at source."
            )


def _copied(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=dtype, copy=True)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())  # 15 times faster than isfinite() of it all
