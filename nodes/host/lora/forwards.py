"""The forwards of a run's layers: made once for each set of LoRAs that its batches have, and used at every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import comfy.ops
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from ....diffstyler_core.lora.low_rank import AddedLowRank, Factors
from .adapters import ForwardLora
from .layer_forward import LayerForward, Part
from .layers_attached import Forward, forwards_on, own_forward
from .merged_linear import MergedLinear

NOTHING = Part()
MOST = 8
"""Sets of LoRAs whose forwards are kept: a run has one for each way in which the host cuts its batches."""

Given = Mapping[str, Sequence[Forward | None]]
"""By a layer's path in the UNet, of each chunk what gives its output without the layer, None where it is computed."""


class _Made(NamedTuple):
    """A layer's forward, and what stood on the module when it was made: another pack's, or None."""

    module: nn.Module
    own: Forward | None
    forward: Forward


class Forwards:
    """What a run puts on the layers of its UNet. It holds LoRAs' matrices on the device, and ends with the run."""

    def __init__(self) -> None:
        self._factors = Factors()
        self._parts: dict[tuple[int, str], tuple[float, Part]] = {}
        self._sets: dict[tuple[object, ...], dict[str, _Made]] = {}

    @contextmanager
    def on(
        self,
        unet: UNetModel,
        loras: Sequence[ForwardLora | None],
        given: Given | None = None,
        fixed: bool = False,
    ) -> Iterator[None]:
        """The UNet runs with loras[i] on the i-th of as many equal chunks of its batch, and is as it was afterwards.

        fixed: whether the model's weights are those of every other such call, so that weights made of them may be kept.
        """
        with forwards_on(self._of(unet, loras, given or {}, fixed)):
            yield

    def _of(
        self, unet: UNetModel, loras: Sequence[ForwardLora | None], given: Given, fixed: bool
    ) -> Iterator[tuple[nn.Module, Forward]]:
        """(layer, its forward) wherever one of the LoRAs acts or something is given."""
        made = self._set_of(loras, fixed)
        acting = {lora.weights: lora for lora in loras if lora is not None}
        for layer in sorted(frozenset(given).union(*(lora.layers for lora in acting.values()))):
            known = made.get(layer)
            if layer in given:
                yield unet.get_submodule(layer), self._make(unet, layer, loras, given[layer]).forward
                continue
            if known is None or own_forward(known.module) is not known.own:
                known = made[layer] = self._make(unet, layer, loras)
                if fixed:
                    known = made[layer] = self._merging(known, loras)
            yield known.module, known.forward

    def _merging(self, made: _Made, loras: Sequence[ForwardLora | None]) -> _Made:
        """With weights of its own, where one LoRA acts in all rows, and for long."""
        first, module, added = loras[0], made.module, getattr(made.forward, "alone", None)
        if first is None or not first.lasting or any(lora is None or _key(lora) != _key(first) for lora in loras):
            return made
        if not isinstance(added, AddedLowRank) or made.own is not None:
            return made
        if not isinstance(module, nn.Linear) or not isinstance(module, comfy.ops.CastWeightBiasOp):
            return made
        return made._replace(forward=MergedLinear(module, added, made.forward))

    def _set_of(self, loras: Sequence[ForwardLora | None], fixed: bool) -> dict[str, _Made]:
        key = fixed, *(None if lora is None else _key(lora) for lora in loras)
        if key not in self._sets and len(self._sets) >= MOST:  # strengths that change at every step
            self._sets.pop(next(iter(self._sets)))
        return self._sets.setdefault(key, {})

    def _make(
        self, unet: UNetModel, layer: str, loras: Sequence[ForwardLora | None], given: Sequence[Forward | None] = ()
    ) -> _Made:
        module = unet.get_submodule(layer)
        own = own_forward(module)
        parts = [NOTHING if lora is None or layer not in lora.layers else self._part(module, layer, lora)
                 for lora in loras]  # fmt: skip
        if given:
            parts = [part if forward is None else Part(forward) for part, forward in zip(parts, given, strict=True)]
        return _Made(module, own, LayerForward(module.forward, parts, self._factors, fresh=own is None))

    def _part(self, module: nn.Module, layer: str, lora: ForwardLora) -> Part:
        strength, part = self._parts.get((lora.weights, layer), (None, None))
        if part is None or strength != lora.strength:
            part = lora.part_of(module, layer, part)
            self._parts[lora.weights, layer] = lora.strength, part
        return part


def _key(lora: ForwardLora) -> tuple[int, float]:
    return lora.weights, lora.strength
