"""What can be added to a MODEL's cross-attention: which prompts it reads, and what joins each prompt's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ....diffstyler_core.injection.cross_layers import CrossLayer

OWN = 0
"""The prompt that a row brings along: the sampler's."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention over projected q, k, v [B, tokens, heads * dim] of a whole batch."""

Size = tuple[int, int]
"""(height, width)."""


class Place(NamedTuple):
    """One cross-attention in one evaluation.

    layer, depth: which. grid: its queries, row by row. latent: the rows' size. chunks: the host's ``cond_or_uncond``:
    the batch is as many equal chunks, those of 0 are the positive prompt's. picture: the size of the sampler's latent,
    None where nobody said; another than ``latent`` where a tile or an area is evaluated.
    """

    layer: CrossLayer
    depth: int
    grid: Size
    latent: Size
    chunks: tuple[int, ...]
    picture: Size | None = None

    def positive(self, like: Tensor) -> Tensor:
        """[B, 1, 1], True for the rows of the positive prompt, on the device of ``like`` [B, ...]."""
        rows = torch.tensor([chunk == 0 for chunk in self.chunks], device=like.device)
        return rows.repeat_interleave(len(like) // len(self.chunks))[:, None, None]


class Reading(NamedTuple):
    """How much of a prompt's attention goes into the output.

    prompt: OWN, or i for the reader's i-th prompt, counted from 1. weight: 1.0 for all of it, or one number for each
    query [tokens]. The weights of a place sum to one.
    """

    prompt: int
    weight: float | Tensor


class Reader(Protocol):
    """Which prompts the positive rows read. A MODEL has one at most.

    name: the node's, for what is said. prompts: embeddings [1, tokens, width]; each layer's own projections make
    their keys and values, with all LoRAs and patches that act on them.
    """

    @property
    def name(self) -> str: ...

    @property
    def prompts(self) -> Sequence[Tensor]: ...

    def readings(self, place: Place) -> Sequence[Reading]:
        """What is read at a place; only OWN leaves it as it is. Raises ValueError for a place that cannot be served."""
        ...


class Joiner(Protocol):
    """What joins an attention of every prompt that is read, e.g. keys and values of image tokens.

    A MODEL may have many. ``attend`` is given all rows of the batch and must call ``inner`` with all of them, once or
    more often; where it does nothing it returns ``inner(q, k, v)``. ``inner`` is the joiner before it, at last other
    packs' replacements and the host's attention. The negative prompt's rows are ``~place.positive(q)``.
    """

    def attend(self, place: Place, q: Tensor, k: Tensor, v: Tensor, inner: Attend) -> Tensor: ...


ONLY_OWN = (Reading(OWN, 1.0),)
