"""Style LoRAs in the forward pass: no weight of the model is patched, and none needs restoring."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from comfy.weight_adapter.bypass import BypassForwardHook
from torch import Tensor, nn

from ....diffstyler_core.lora.schedule import Lora
from .check import checked_adapters
from .keys import PREFIX
from .merged import MergedParameter, merged_forward

log = logging.getLogger(__name__)

Forward = Callable[..., Tensor]


class ForwardLora:
    """A LoRA on one model at one strength: ``f(x) + strength * h(x)`` by the host's own adapters where they act as in
    the weights, and with the host's merged weights (lora/merged.py) where only those do.

    notes: lines on what of it is not applied here, and what it costs, for the node to show.
    Raises ValueError for what would not act as in the weights (lora/check.py).
    """

    def __init__(self, model: ModelPatcher, lora: Lora, strength: float, name: str = "the style LoRA") -> None:
        checked = checked_adapters(model, lora, name)
        self._adapters, self.notes = checked.added, checked.notes
        self._merged: dict[str, dict[str, MergedParameter]] = {}
        for key, patch in checked.merged.items():
            layer, _, parameter = key.rpartition(".")
            self._merged.setdefault(layer, {})[parameter] = MergedParameter(key, patch, name)
        self._resident: dict[str, WeightAdapterBase] = {}
        self._strength = strength

    def at(self, strength: float) -> ForwardLora:
        """The same LoRA at another strength; the weights are shared."""
        other = copy.copy(self)
        other._strength = strength
        return other

    def release(self) -> None:
        """Forgets the weights on the computing device, at every strength."""
        self._resident.clear()
        for parameters in self._merged.values():
            for parameter in parameters.values():
                parameter.release()

    @property
    def layers(self) -> frozenset[str]:
        """Paths of the layers in the UNet that it acts on."""
        return frozenset(key.removeprefix(PREFIX) for key in (*self._adapters, *self._merged))

    def forward_of(self, module: nn.Module, layer: str) -> Forward:
        """A forward of ``module`` with this LoRA around the one that it has now. The module itself stays as it is."""
        merged = self._merged.get(PREFIX + layer)
        if merged is None:
            return self._added_to(module, layer)
        functions = {parameter: of.at(self._strength) for parameter, of in merged.items()}
        forward = merged_forward(module, functions, module.forward)
        if PREFIX + layer not in self._adapters:
            return forward
        with _forward_kept(module):
            module.forward = forward
            return self._added_to(module, layer)

    def _added_to(self, module: nn.Module, layer: str) -> Forward:
        moved = self._resident.get(layer, self._adapters[PREFIX + layer])
        adapter = copy.copy(moved)  # the hook writes its strength and its place on it
        with _forward_kept(module):
            hook = BypassForwardHook(module, adapter, self._strength)
            hook.inject()  # also moves the adapter to the computing device
            self._resident[layer] = adapter
            return module.forward


@contextmanager
def _forward_kept(module: nn.Module) -> Iterator[None]:
    """Puts a module's forward back, whether it is the class's own or an instance attribute."""
    own = module.__dict__.get("forward")
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)
        if own is not None:
            module.__dict__["forward"] = own


@contextmanager
def loras_applied(unet: UNetModel, loras: Sequence[ForwardLora | None]) -> Iterator[None]:
    """The UNet runs with loras[i] on the i-th of as many equal chunks of its batch, and is as it was afterwards."""
    acting = {id(lora): lora for lora in loras if lora is not None}
    with ExitStack() as stack:
        for layer in sorted(frozenset().union(*(lora.layers for lora in acting.values()))):
            module = unet.get_submodule(layer)
            forwards: dict[int, Forward] = {
                key: lora.forward_of(module, layer) for key, lora in acting.items() if layer in lora.layers
            }
            chunks = [forwards.get(id(lora), module.forward) for lora in loras]
            stack.enter_context(_forward_kept(module))
            module.forward = _by_chunk(chunks)
        yield


def _by_chunk(forwards: Sequence[Forward]) -> Forward:
    """One forward for a batch of equal chunks; neighbours with the same forward run together."""
    runs = [(forward, len(list(group))) for forward, group in groupby(forwards)]
    if len(runs) == 1:
        return runs[0][0]

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        size, odd = divmod(x.shape[0], len(forwards))
        if odd:
            raise RuntimeError(f"a batch of {x.shape[0]} rows cannot be shared by {len(forwards)} prompts of one size.")
        parts = x.split([size * count for _, count in runs])
        return torch.cat([f(part, *args, **kwargs) for (f, _), part in zip(runs, parts, strict=True)])

    return forward
