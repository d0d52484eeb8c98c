"""DEADiff (Qi et al. 2024): style and semantics of a picture, read by layers of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .extractor import Extractor
from .prompt import ImagePrompt, LayerTokens

CONTENT_LAYERS = (4, 5, 6, 7, 8)
"""Coarse cross-attention layers, which read semantics; all others read the style (published content_layer, SD1.5)."""
STYLE, CONTENT, BOTH = "style", "content", "style and content"
MODES: dict[str, tuple[str, ...]] = {STYLE: (STYLE,), CONTENT: (CONTENT,), BOTH: (STYLE, CONTENT)}
"""Which instructions each mode extracts. The layers of the other one read zero tokens; both is the reconstruction."""


class Vision(NamedTuple):
    """The CLIP that the extractors were trained on. layers: after how many of its layers the hidden states are taken
    (one before the last), tokens: how many there are; None where the file does not tell."""

    width: int
    layers: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class DEADiff:
    """A checkpoint's trained parts. extractors: by instruction. projections: (W_I^K, W_I^V), by layer number."""

    extractors: Mapping[str, Extractor]
    projections: tuple[tuple[Tensor, Tensor], ...]
    vision: Vision
    source: str

    def prompt(self, tokens: Mapping[str, Tensor]) -> ImagePrompt:
        """Tokens [1, N, C] by instruction -> each layer's: semantics in CONTENT_LAYERS, style in all others.

        Where an instruction was not extracted, its layers read zeros (published get_learned_conditioning).
        """
        zeros = torch.zeros_like(next(iter(tokens.values())))
        layers = []
        for number, (to_k, to_v) in enumerate(self.projections):
            read = tokens.get(CONTENT if number in CONTENT_LAYERS else STYLE, zeros)
            layers.append(LayerTokens(read, to_k.float(), to_v.float()))
        return ImagePrompt(tuple(layers), f"DEADiff ({' and '.join(tokens)})")
