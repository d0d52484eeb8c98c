"""A picture as tokens that cross-attention reads beside the text, with projections of their own (DEADiff, fig. 2b)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional


class LayerTokens(NamedTuple):
    """What one cross-attention layer reads: tokens c_i [1, N, C], W_I^K and W_I^V [D, C] as nn.Linear holds them.

    Tokens of zeros are read as well: they have keys of zeros, and take their share of the softmax.
    """

    tokens: Tensor
    to_k: Tensor
    to_v: Tensor

    def keys_values(self, scale: float) -> tuple[Tensor, Tensor]:
        """scale c_i W_I^K and scale c_i W_I^V, [1, N, D] each (the poster's K and V without the text's half)."""
        return scale * functional.linear(self.tokens, self.to_k), scale * functional.linear(self.tokens, self.to_v)


@dataclass(frozen=True)
class ImagePrompt:
    """Tokens and projections for each cross-attention layer of a UNet, in the order of its evaluation.

    layers: by number, as ``CrossLayer.number`` counts them. source: who made it, for errors and words.
    Raises ValueError for none, and for shapes that do not belong together.
    """

    layers: tuple[LayerTokens, ...]
    source: str

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"the image prompt of {self.source} has no layers.")
        for number, (tokens, to_k, to_v) in enumerate(self.layers):
            fits = tokens.ndim == 3 and len(tokens) == 1 and tokens.shape[1] > 0 and to_k.ndim == 2
            if not fits or to_k.shape != to_v.shape or to_k.shape[1] != tokens.shape[2]:
                raise ValueError(
                    f"the image prompt of {self.source}, layer {number}: tokens [1, N, C] and projections [D, C] are "
                    f"expected, got {list(tokens.shape)}, {list(to_k.shape)} and {list(to_v.shape)}."
                )

    @property
    def width(self) -> int:
        """C of the tokens, which is also the width of the prompts they stand beside."""
        return self.layers[0].tokens.shape[2]

    @property
    def widths(self) -> tuple[int, ...]:
        """D of each layer."""
        return tuple(layer.to_k.shape[0] for layer in self.layers)
