"""A layer that runs with merged weights: what the forward pass cannot do by addition, through the host's own patches.

The host casts, moves, dequantises and patches a layer's weight for every call and hands it to the layer's
``weight_function``. For the rows of a LoRA one function more stands there during their call: it gives W' for W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import comfy.lora
import comfy.model_management
import torch
from torch import Tensor, nn

PARAMETERS = ("weight", "bias")
SAMPLED = 1024
"""Of so many values of a weight is known whether it is still the one that W' was made of."""

WeightFunction = Callable[[Tensor], Tensor]


class _Kept(NamedTuple):
    """W' of one strength, and what it was made of."""

    strength: float
    base: Tensor
    merged: Tensor

    def is_of(self, weight: Tensor, strength: float) -> bool:
        like = self.merged.dtype == weight.dtype and self.merged.device == weight.device
        return like and self.strength == strength and torch.equal(self.base, _sampled(weight))


class MergedParameter:
    """One parameter's patch, in the host's form, and W' of the strength that it had last.

    W' is kept while the computing device has room for it; otherwise it is made anew at each call, to the same values.
    """

    def __init__(self, key: str, patch: Any, name: str) -> None:
        self._key, self._patch, self._name = key, patch, name
        self._kept: _Kept | None = None

    def at(self, strength: float) -> WeightFunction:
        """W' of a W as the host has made it ready; W may be changed in place."""

        def merge(weight: Tensor) -> Tensor:
            if self._kept is None or not self._kept.is_of(weight, strength):
                self._kept = None
                merged, base = self._merged(weight, strength), _sampled(weight).clone()
                if not has_room(merged):
                    return merged
                self._kept = _Kept(strength, base, merged)
            return self._kept.merged

        return merge

    def release(self) -> None:
        """Forgets W'."""
        self._kept = None

    def _merged(self, weight: Tensor, strength: float) -> Tensor:
        """The host's own arithmetic, in fp32. Raises ValueError where it gives no numbers."""
        exact = weight.to(torch.float32, copy=True)
        merged = comfy.lora.calculate_weight([(strength, self._patch, 1.0, None, None)], exact, self._key)
        merged = merged.to(weight.dtype)
        if not torch.isfinite(merged).all():
            raise ValueError(
                f"{self._name}: layer {self._key!r}: at strength {strength:g} its weights are not finite in "
                f"{weight.dtype}. Lower the strength, or train or fetch the LoRA again."
            )
        return merged


def _sampled(weight: Tensor) -> Tensor:
    flat = weight.flatten()
    return flat[:: max(1, flat.numel() // SAMPLED)]


def has_room(merged: Tensor) -> bool:
    """Whether, with a weight that was made kept on its device, a run still has what the host calls its least there."""
    free = comfy.model_management.get_free_memory(merged.device)
    return bool(free - merged.nbytes > comfy.model_management.minimum_inference_memory())


def merged_forward(
    module: nn.Module, functions: Mapping[str, WeightFunction], forward: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """``forward`` of ``module`` with one function more on its parameters during each call, and none afterwards."""

    def call(*args: Any, **kwargs: Any) -> Tensor:
        with _functions_on(module, functions):
            return forward(*args, **kwargs)

    return call


@contextmanager
def _functions_on(module: nn.Module, functions: Mapping[str, WeightFunction]) -> Iterator[None]:
    """After the host's own functions (the MODEL's patches, where it is partly loaded), which stay as they are."""
    with ExitStack() as stack:
        for parameter, function in functions.items():
            attribute = f"{parameter}_function"
            present = attribute in module.__dict__
            before = getattr(module, attribute)
            if present:
                stack.callback(setattr, module, attribute, before)
            else:
                stack.callback(delattr, module, attribute)
            setattr(module, attribute, [*before, function])
        yield
