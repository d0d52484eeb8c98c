"""Numbers, one by one and in tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def require_number(value: float, name: str, low: float, high: float) -> float:
    """The value, when it is a finite number in low..high. JSON's NaN passes the host's own bounds."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in {low:g}..{high:g}, got {value!r:.40}. Type one in.")
    return value


def require_finite(tensor: Tensor, name: str) -> None:
    """Raises ValueError when a tensor holds NaN or infinity."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds values that are not finite (NaN or infinity): check the node that made it.")


def require_within(tensor: Tensor, name: str, largest: float, why: str) -> None:
    """Raises ValueError, with the reason in words, when a tensor holds values whose size exceeds ``largest``."""
    found = tensor.abs().max().item() if tensor.numel() else 0.0
    if found > largest:
        raise ValueError(f"{name} holds values up to {found:.3g}, beyond {largest:.3g}: {why}.")
