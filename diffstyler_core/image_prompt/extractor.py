"""What DEADiff extracts from a picture under one instruction: a query transformer and a projection (DDRE)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .qformer import EPSILON, QFormer


class Sizes(NamedTuple):
    """Of an extractor. queries: N. width: C of queries and words. picture_width: of CLIP's hidden states.

    inner, projected: widths inside the query transformer's and the projection's feed-forward layers. depth: layers.
    crossed: those that look at the picture.
    """

    queries: int
    width: int
    picture_width: int
    inner: int
    projected: int
    depth: int
    crossed: frozenset[int]


PUBLISHED = Sizes(16, 768, 1024, 3072, 3072, 12, frozenset(range(12)))
"""DEADiff's (configs/inference_deadiff_512x512.yaml: 16 queries, cross-attention in each layer)."""


class Extractor(nn.Module):
    """CLIP's hidden states of a picture [B, P, V] -> image tokens [B, N, C].

    words: the instruction's embeddings [1, L, C], positions added, before the first LayerNorm.
    """

    words: Tensor

    def __init__(self, sizes: Sizes, words: int = 3) -> None:
        super().__init__()
        self.ln_vision = nn.LayerNorm(sizes.picture_width)
        self.query_tokens = nn.Parameter(torch.zeros(1, sizes.queries, sizes.width))
        self.register_buffer("words", torch.zeros(1, words, sizes.width))
        self.qformer = QFormer(sizes.width, sizes.picture_width, sizes.inner, sizes.depth, sizes.crossed)
        self.proj_layer = ProjLayer(sizes.width, sizes.projected)

    def forward(self, hidden: Tensor) -> Tensor:
        picture, count = self.ln_vision(hidden), len(hidden)
        queries, words = (part.expand(count, -1, -1) for part in (self.query_tokens, self.words))
        return self.proj_layer(self.qformer(queries, words, picture))


class ProjLayer(nn.Module):
    """x + dense2(QuickGELU(dense1(LayerNorm(x)))), of BLIP-Diffusion (Li et al. 2023)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dense1(self.LayerNorm(x))
        return x + self.dense2(hidden * torch.sigmoid(1.702 * hidden))
