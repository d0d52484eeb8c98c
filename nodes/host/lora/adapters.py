"""Style LoRAs in the forward pass: no weight of the model is patched, and none needs restoring."""

from __future__ import annotations

import copy

from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from comfy.weight_adapter.bypass import BypassForwardHook
from torch import Tensor, nn

from ....diffstyler_core.lora.low_rank import AddedLowRank
from ....diffstyler_core.lora.schedule import Lora
from .check import checked_adapters
from .keys import PREFIX
from .layer_forward import Part
from .layers_attached import forward_kept
from .merged import MergedParameter, merged_forward


class ForwardLora:
    """A LoRA on one model at one strength: ``f(x) + strength * h(x)`` by the host's own adapters where they act as in
    the weights, and with the host's merged weights (lora/merged.py) where only those do.

    notes: lines on what of it is not applied here, and what it costs, for the node to show.
    lasting: whether it acts at this strength for so many steps that weights of its own are worth making.
    Raises ValueError for what would not act as in the weights (lora/check.py).
    """

    def __init__(self, model: ModelPatcher, lora: Lora, strength: float, name: str = "the style LoRA") -> None:
        checked = checked_adapters(model, lora, name)
        self._adapters, self.notes = checked.added, checked.notes
        self._merged: dict[str, dict[str, MergedParameter]] = {}
        for key, patch in checked.merged.items():
            layer, _, parameter = key.rpartition(".")
            self._merged.setdefault(layer, {})[parameter] = MergedParameter(key, patch, name)
        self.strength, self.lasting = strength, False
        self.layers = frozenset(key.removeprefix(PREFIX) for key in (*self._adapters, *self._merged))

    def at(self, strength: float, lasting: bool = False) -> ForwardLora:
        """The same LoRA at another strength; the weights are shared."""
        other = copy.copy(self)
        other.strength, other.lasting = strength, lasting
        return other

    def release(self) -> None:
        """Forgets the merged weights on the computing device, at every strength."""
        for parameters in self._merged.values():
            for parameter in parameters.values():
                parameter.release()

    def part_of(self, module: nn.Module, layer: str, former: Part | None) -> Part:
        """What this LoRA does in a layer; ``module`` stays as it is. former: the same LoRA's at another strength."""
        own, added = None, None
        if PREFIX + layer in self._merged:
            functions = {name: of.at(self.strength) for name, of in self._merged[PREFIX + layer].items()}
            own = merged_forward(module, functions, module.forward)
        adapter = self._adapters.get(PREFIX + layer)
        if adapter is not None:
            added = _low_rank(module, adapter, self.strength) or _Added.of(
                module, adapter, self.strength, former and former.added
            )
        return Part(own, added)

    @property
    def weights(self) -> int:
        """The same number for the same LoRA at any strength."""
        return id(self._adapters)


def _low_rank(module: nn.Module, adapter: WeightAdapterBase, strength: float) -> AddedLowRank | None:
    """A linear layer's plain LoRA; None for any other layer or form."""
    if not isinstance(module, nn.Linear) or adapter.name != "lora":
        return None
    up, down, alpha, middle, *_ = adapter.weights
    if middle is not None or up.ndim != 2 or down.ndim != 2:
        return None
    return AddedLowRank(down, up, strength * (1.0 if alpha is None else float(alpha) / down.shape[0]))


class _Added:
    """What one of the host's adapters adds to a layer's output, on the device that computes."""

    def __init__(self, adapter: WeightAdapterBase) -> None:
        self._adapter = adapter

    @classmethod
    def of(cls, module: nn.Module, adapter: WeightAdapterBase, strength: float, former: object) -> _Added:
        """former: the same at another strength, whose weights are on the device already."""
        ready = copy.copy(former._adapter if isinstance(former, _Added) else adapter)
        with forward_kept(module):
            BypassForwardHook(module, ready, strength).inject()  # tells it its layer and strength, and moves it
        return cls(ready)

    def add(self, out: Tensor, x: Tensor) -> None:
        """out += h(x) in place. The host's ``g`` changes nothing in the families that are added."""
        out += self._adapter.h(x, out)
