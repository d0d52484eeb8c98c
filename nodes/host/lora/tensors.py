"""A LoRA's tensors one by one: plain, finite, and of a size that a LoRA can have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .keys import OFT, is_factor, layer_and_part

LARGEST_WEIGHT = 65504.0
"""The largest number of fp16, in which files are written."""


def require_tensors(state: Mapping[str, Any], name: str) -> None:
    """Raises ValueError that names the layer and the tensor; each alpha is one number, and not 0."""
    for key, tensor in state.items():
        layer, part = layer_and_part(key)
        where = f"{name}: {layer}: {part}"
        _require_plain(tensor, where)
        if is_factor(key) and tensor.ndim < 2:
            raise ValueError(f"{where} must be a matrix or kernel, got {list(tensor.shape)}. Train or fetch it again.")
        if tensor.is_floating_point():
            _require_sane(tensor, where)
        constraint = key.removesuffix(".alpha") + OFT in state  # of OFT and BOFT, 0: none
        if key.endswith(".alpha") and (tensor.numel() != 1 or (tensor.item() == 0.0 and not constraint)):
            got = f"{tensor.item():g}" if tensor.numel() == 1 else f"{list(tensor.shape)}"
            raise ValueError(f"{where} must be one number other than 0, got {got}.")


def _require_plain(tensor: Any, where: str) -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{where} is no tensor but {type(tensor).__name__}. Use another file.")
    if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided:
        kind = "without values" if tensor.is_meta else f"of {tensor.dtype}, {tensor.layout}"
        raise ValueError(f"{where} is a tensor {kind}, not of plain numbers. Use another file.")
    if not tensor.numel():
        raise ValueError(f"{where} is empty, {list(tensor.shape)}. Train or fetch it again.")


def _require_sane(tensor: Tensor, where: str) -> None:
    low, high = (value.item() for value in torch.aminmax(tensor.float() if tensor.itemsize < 2 else tensor))
    if not math.isfinite(low + high):
        raise ValueError(
            f"{where} holds values that are not finite (NaN or infinity): the file is damaged or its training "
            "diverged. Train or fetch it again."
        )
    found = max(abs(low), abs(high))
    if found > LARGEST_WEIGHT:
        raise ValueError(
            f"{where} holds values up to {found:.3g}, beyond {LARGEST_WEIGHT:g}: the file is damaged or its training "
            "diverged. Train or fetch it again."
        )
