"""One LoRA on all rows of a linear layer for many steps: the weight with the LoRA in it, made once, kept for the run.

The model's own weight is not touched: W' stands beside it, and one product does what takes three otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ....diffstyler_core.lora.low_rank import AddedLowRank
from .layers_attached import Forward
from .merged import has_room, merged_forward

PLAIN = (torch.float32, torch.float16, torch.bfloat16)


class MergedLinear:
    """A forward with W' = W + scale up down, rounded once. otherwise: the forward where W' cannot be kept.

    W is as the host makes it ready for a call: cast, moved, with the MODEL's patches. It must not change while this
    lives.
    """

    def __init__(self, module: nn.Linear, added: AddedLowRank, otherwise: Forward) -> None:
        self._module, self._added, self._otherwise = module, added, otherwise
        self._base = module.forward
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._tried = False

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self._tried:
            return self._first(x)
        weight = self._weight
        if weight is None or (weight.device, weight.dtype) != (x.device, x.dtype):
            return self._otherwise(x, *args, **kwargs)
        return nn.functional.linear(x, weight, self._bias)

    def _first(self, x: Tensor) -> Tensor:
        """The first call, in which the host shows the weight."""
        self._tried = True
        functions = {"weight": self._merge, "bias": self._keep}
        return merged_forward(self._module, functions, self._base)(x)

    def _merge(self, weight: Tensor) -> Tensor:
        down, up = (matrix.to(weight.device, weight.dtype) for matrix in self._added[:2])
        merged = torch.addmm(weight, up, down, alpha=self._added.scale)
        if not isinstance(weight, QuantizedTensor) and weight.dtype in PLAIN and has_room(merged):
            self._weight = merged
        return merged

    def _keep(self, bias: Tensor) -> Tensor:
        self._bias = bias.clone()
        return bias
