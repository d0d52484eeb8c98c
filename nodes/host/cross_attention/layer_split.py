"""One prompt for the coarse cross-attention layers, another for the fine ones (DEADiff, disentangled conditioning)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.injection.cross_layers import CrossLayers, numbers
from ....diffstyler_core.injection.sites import format_layers
from ..checks.conditioning import Conditioning, require_conditioning
from .blend import require_tokens_only
from .parts import ONLY_OWN, OWN, Place, Reading

NAME = "Layer-split Conditioning"


class LayerSplit:
    """A reader: ``semantic`` in the layers of the numbers ``coarse``, ``style`` in all others; None: the sampler's."""

    name = NAME

    def __init__(self, semantic: Tensor | None, style: Tensor | None, coarse: Collection[int]) -> None:
        self.prompts = tuple(prompt for prompt in (semantic, style) if prompt is not None)
        self._coarse = frozenset(coarse)
        self._semantic = OWN if semantic is None else 1
        self._style = OWN if style is None else len(self.prompts)

    def readings(self, place: Place) -> Sequence[Reading]:
        """The one prompt of the layer."""
        prompt = self._semantic if place.layer.number in self._coarse else self._style
        return ONLY_OWN if prompt == OWN else (Reading(prompt, 1.0),)


def require_split(model: ModelPatcher, semantic: Conditioning | None, style: Conditioning | None) -> None:
    """Raises ValueError when neither prompt is given, and for one that does not fit the model."""
    if semantic is None and style is None:
        raise ValueError(
            "semantic and style: neither was given, so every layer would read the sampler's own prompt. "
            "Wire one of them."
        )
    for prompt, name in ((semantic, "semantic"), (style, "style")):
        if prompt is not None:
            require_conditioning(prompt, model, name, one=True, whose="this")
            require_tokens_only(prompt[0][1], name)


def split(semantic: Conditioning | None, style: Conditioning | None, coarse: Collection[int]) -> LayerSplit:
    """The reader of two CONDITIONINGs."""
    first, second = (None if prompt is None else prompt[0][0] for prompt in (semantic, style))
    return LayerSplit(first, second, coarse)


def describe(layers: CrossLayers, coarse: Sequence[int], semantic: bool, style: bool) -> list[str]:
    """Which layers read which prompt, and the grids that they see."""
    fine = tuple(number for number in numbers(layers) if number not in coarse)
    lines = []
    for name, given, own in (("semantic", semantic, tuple(coarse)), ("style", style, fine)):
        cells = sorted({layer.cell for layer in layers if layer.number in own})
        grids = ", ".join(f"1/{cell}" for cell in cells)
        where = f"layers {format_layers(own)} of {len(layers)} ({grids} of the latent)" if own else "no layer"
        lines.append(f"{name}: {where}" + ("" if given else ", the sampler's own prompt"))
    return lines
