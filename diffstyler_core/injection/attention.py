"""What an attention is computed of: the content's blended with the style's own (DiffStyler 2026, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from einops import repeat
from torch import Tensor

from .sites import Site

Blend = Literal["qk", "map"]
BLENDS: tuple[Blend, ...] = ("qk", "map")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention over projected q, k, v [B, tokens, heads * dim] -> [B, tokens, heads * dim]."""


class QKV(NamedTuple):
    """What one attention is computed of, projected: q [B, tokens, C]; k, v [B, other tokens, C]."""

    q: Tensor
    k: Tensor
    v: Tensor


class Mixture(NamedTuple):
    """(1 - own) Attn(first) + own Attn(second).

    own: share in [0, 1] of the second attention, a number or one per row [B, 1, 1]. second: None where it is 0.
    """

    first: QKV
    own: float | Tensor = 0.0
    second: QKV | None = None

    def of(self, change: Callable[[QKV], QKV]) -> Mixture:
        """The mixture with both attentions changed alike."""
        second = None if self.second is None else change(self.second)
        return Mixture(change(self.first), self.own, second)


def repeated(content: Tensor, rows: int, site: Site) -> Tensor:
    """The contents' tensor [B, ...] for as many rows: those of every chunk of a batch, content by content.

    Raises ValueError when the rows are no multiple of the contents.
    """
    chunks, rest = divmod(rows, len(content))
    if rest or not chunks:
        raise ValueError(
            f"{site}: captured of {len(content)} contents, this run has {rows} rows, which they cannot share. "
            "Sample as many pictures as were inverted, in one batch."
        )
    return (
        content.expand(rows, *content.shape[1:])
        if len(content) == 1
        else content.repeat(chunks, *[1] * (content.ndim - 1))
    )


def fit_rows(content: Tensor, own: Tensor, site: Site) -> Tensor:
    """The contents' tensor [B, tokens, C], repeated to the rows (and prompt chunks) of ``own`` [rows, tokens, C].

    Cross-attention keys of a short prompt stand beside longer prompts as repeated chunks of 77 tokens, as the host
    pads them. Raises ValueError when the tokens do not fit.
    """
    return fit_tokens(content.to(own), own.shape, site)


def fit_tokens(content: Tensor, shape: Sequence[int], site: Site) -> Tensor:
    """``fit_rows`` to a shape (rows, tokens, C)."""
    rows, tokens, channels = shape
    chunks, rest = divmod(tokens, content.shape[1])
    chunked = site.kind == "cross-attention"
    if content.shape[2] != channels or rest or chunks == 0 or (chunks > 1 and not chunked):
        raise ValueError(
            f"{site}: the content was captured with {content.shape[1]} tokens of {content.shape[2]} channels, "
            f"this run has {tokens} of {channels}. Use a start latent of the content's size, no area conditioning, "
            "and no other patch that merges tokens."
        )
    return repeated(content if chunks == 1 else repeat(content, "b n c -> b (chunks n) c", chunks=chunks), rows, site)


def mix(own: QKV, q_content: Tensor, k_content: Tensor, kappa: float, blend: Blend) -> Mixture:
    """What A** = (1 - kappa) A_content + kappa A_style is computed with (eq. 5).

    own: the style run's. q_content, k_content: [B, tokens, C] or broadcastable rows.
    kappa: the style's share in [0, 1]; 0 overrides, 1 leaves the style's own attention.
    blend: "qk" blends q and k before the softmax, "map" the two attention maps.
    """
    if not 0.0 <= kappa <= 1.0:
        raise ValueError(f"kappa must lie in [0, 1], got {kappa}.")
    q, k, v = own
    if kappa == 1.0:
        return Mixture(own)
    if kappa == 0.0:
        return Mixture(QKV(q_content, k_content, v))
    if blend == "qk":
        return Mixture(QKV(torch.lerp(q_content, q, kappa), torch.lerp(k_content, k, kappa), v))
    return Mixture(QKV(q_content, k_content, v), kappa, own)


def attend_mixed(mixture: Mixture, attend: Attend) -> Tensor:
    """The mixture's attention [B, tokens, C], without ever storing a map."""
    out = attend(*mixture.first)
    if mixture.second is None:
        return out
    return torch.lerp(out, attend(*mixture.second), mixture.own)


def mix_rows(parts: list[Mixture]) -> list[Mixture]:
    """Mixtures for the rows of several, one after the other: as few as can be, one wherever tokens are as many."""
    return [_joined(list(group)) for _, group in groupby(parts, _tokens)]


def _tokens(mixture: Mixture) -> tuple[int, int]:
    """How many keys its attentions have; rows of one batch must have as many."""
    first, second = mixture.first.k.shape[1], mixture.second
    return first, first if second is None else second.k.shape[1]


def _joined(parts: list[Mixture]) -> Mixture:
    first = _stacked([part.first for part in parts])
    if all(part.second is None for part in parts):
        return Mixture(first)
    q = first.q
    own = [torch.as_tensor(part.own, dtype=q.dtype, device=q.device).expand(len(part.first.q), 1, 1) for part in parts]
    return Mixture(first, torch.cat(own), _stacked([part.second or part.first for part in parts]))


def _stacked(parts: list[QKV]) -> QKV:
    return parts[0] if len(parts) == 1 else QKV(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
