"""The query transformer of BLIP-2 with an instruction (Li et al. 2023, fig. 2), under its public key names.

Learned queries and the words of the instruction attend to each other, the queries to the picture as well; queries and
words have feed-forward layers of their own. Here it is only run: no dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = 12
"""Of every attention, as in bert-base-uncased. The files do not tell."""
EPSILON = 1e-12
"""Of BERT's LayerNorms."""


class QFormer(nn.Module):
    """Queries [B, N, C] with words [B, L, C] and a picture's hidden states [B, P, V] -> [B, N, C].

    depth: layers. crossed: those whose queries look at the picture. inner: width of the feed-forward layers.
    """

    def __init__(self, width: int, picture_width: int, inner: int, depth: int, crossed: frozenset[int]) -> None:
        super().__init__()
        if width % HEADS:
            raise ValueError(f"a query transformer's width is a multiple of its {HEADS} heads, got {width}.")
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)
        seen = [picture_width if number in crossed else None for number in range(depth)]
        self.layer = nn.ModuleList(_Layer(width, picture, inner) for picture in seen)

    def forward(self, queries: Tensor, words: Tensor, picture: Tensor) -> Tensor:
        """The queries after the last layer."""
        hidden = self.LayerNorm(torch.cat([queries, words], 1))
        for layer in self.layer:
            hidden = layer(hidden, queries.shape[1], picture)
        return hidden[:, : queries.shape[1]]


class _Layer(nn.Module):
    """One layer; a picture_width of None: its queries do not look at the picture."""

    def __init__(self, width: int, picture_width: int | None, inner: int) -> None:
        super().__init__()
        self.attention = _Attention(width, width)
        if picture_width is not None:
            self.crossattention = _Attention(width, picture_width)
        self.intermediate, self.output = nn.ModuleDict({"dense": nn.Linear(width, inner)}), _Output(inner, width)
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output_query = _Output(inner, width)

    def forward(self, hidden: Tensor, count: int, picture: Tensor) -> Tensor:
        hidden = self.attention(hidden, hidden)
        queries, words = hidden[:, :count], hidden[:, count:]
        if hasattr(self, "crossattention"):
            queries = self.crossattention(queries, picture)
        queries = self.output_query(functional.gelu(self.intermediate_query["dense"](queries)), queries)
        words = self.output(functional.gelu(self.intermediate["dense"](words)), words)
        return torch.cat([queries, words], 1)


class _Attention(nn.Module):
    """BERT's attention with its residual and LayerNorm."""

    def __init__(self, width: int, picture_width: int) -> None:
        super().__init__()
        projections = {"query": nn.Linear(width, width)}
        projections |= {name: nn.Linear(picture_width, width) for name in ("key", "value")}
        self.self = nn.ModuleDict(projections)
        self.output = _Output(width, width)

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:
        parts = self.self["query"](hidden), self.self["key"](seen), self.self["value"](seen)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        return self.output(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2), hidden)


class _Output(nn.Module):
    """A projection, the residual, and the LayerNorm after it."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(hidden) + before)
