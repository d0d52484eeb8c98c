"""Blending the content's attention with the style's own (DiffStyler 2026, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

Blend = Literal["qk", "map"]
BLENDS: tuple[Blend, ...] = ("qk", "map")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention over projected q, k, v [B, tokens, heads * dim] -> [B, tokens, heads * dim]."""


def fit_rows(content: Tensor, own: Tensor, what: str) -> Tensor:
    """The content's tensor [1, tokens, C], repeated to the rows (and prompt chunks) of ``own`` [B, tokens, C].

    Cross-attention keys of a short prompt stand beside longer prompts as repeated chunks of 77 tokens, as the host
    pads them. Raises ValueError when the tokens do not fit.
    """
    rows, tokens = own.shape[0], own.shape[1]
    chunks, rest = divmod(tokens, content.shape[1])
    cross = what.startswith("cross")
    if content.shape[2] != own.shape[2] or rest or chunks == 0 or (chunks > 1 and not cross):
        raise ValueError(
            f"{what}: the content was captured with {content.shape[1]} tokens of {content.shape[2]} channels, "
            f"this run has {tokens} of {own.shape[2]}. Use a start latent of the content's size, no area conditioning, "
            "and no other patch that merges tokens."
        )
    return repeat(content.to(own), "1 n c -> b (chunks n) c", b=rows, chunks=chunks)


def inject_attention(
    q: Tensor, k: Tensor, v: Tensor, q_content: Tensor, k_content: Tensor, kappa: float, blend: Blend, attend: Attend
) -> Tensor:
    """A** = (1 - kappa) A_content + kappa A_style applied to v, without storing a map (eq. 5).

    q, k, v: the style run's own, [B, tokens, C]; q_content, k_content: [B, tokens, C] or broadcastable rows.
    kappa: the style's share in [0, 1]; 0 overrides, 1 leaves the style's own attention.
    blend: "qk" blends q and k before the softmax, "map" the two attention maps.
    """
    if not 0.0 <= kappa <= 1.0:
        raise ValueError(f"kappa must lie in [0, 1], got {kappa}.")
    if kappa == 1.0:
        return attend(q, k, v)
    if kappa == 0.0:
        return attend(q_content, k_content, v)
    if blend == "qk":
        return attend(torch.lerp(q_content, q, kappa), torch.lerp(k_content, k, kappa), v)
    return torch.lerp(attend(q_content, k_content, v), attend(q, k, v), kappa)
