"""Blending the content's attention with the style's own (DiffStyler 2026, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from einops import repeat
from torch import Tensor

from .sites import Site

Blend = Literal["qk", "map"]
BLENDS: tuple[Blend, ...] = ("qk", "map")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention over projected q, k, v [B, tokens, heads * dim] -> [B, tokens, heads * dim]."""


class Mixture(NamedTuple):
    """What an attention is computed with: (1 - own) Attn(q, k, v) + own Attn(q_own, k_own, v).

    q, k: [B, tokens, C]. own: share in [0, 1] of the run's own attention map, a number or one per row [B, 1, 1].
    """

    q: Tensor
    k: Tensor
    own: float | Tensor = 0.0


def fit_rows(content: Tensor, own: Tensor, site: Site) -> Tensor:
    """The content's tensor [1, tokens, C], repeated to the rows (and prompt chunks) of ``own`` [B, tokens, C].

    Cross-attention keys of a short prompt stand beside longer prompts as repeated chunks of 77 tokens, as the host
    pads them. Raises ValueError when the tokens do not fit.
    """
    rows, tokens = own.shape[0], own.shape[1]
    chunks, rest = divmod(tokens, content.shape[1])
    chunked = site.kind == "cross-attention"
    if content.shape[2] != own.shape[2] or rest or chunks == 0 or (chunks > 1 and not chunked):
        raise ValueError(
            f"{site}: the content was captured with {content.shape[1]} tokens of {content.shape[2]} channels, "
            f"this run has {tokens} of {own.shape[2]}. Use a start latent of the content's size, no area conditioning, "
            "and no other patch that merges tokens."
        )
    return repeat(content.to(own), "1 n c -> b (chunks n) c", b=rows, chunks=chunks)


def mix(q: Tensor, k: Tensor, q_content: Tensor, k_content: Tensor, kappa: float, blend: Blend) -> Mixture:
    """What A** = (1 - kappa) A_content + kappa A_style is computed with (eq. 5).

    q, k: the style run's own, [B, tokens, C]; q_content, k_content: [B, tokens, C] or broadcastable rows.
    kappa: the style's share in [0, 1]; 0 overrides, 1 leaves the style's own attention.
    blend: "qk" blends q and k before the softmax, "map" the two attention maps.
    """
    if not 0.0 <= kappa <= 1.0:
        raise ValueError(f"kappa must lie in [0, 1], got {kappa}.")
    if kappa == 1.0:
        return Mixture(q, k)
    if kappa == 0.0:
        return Mixture(q_content, k_content)
    if blend == "qk":
        return Mixture(torch.lerp(q_content, q, kappa), torch.lerp(k_content, k, kappa))
    return Mixture(q_content, k_content, kappa)


def attend_mixed(mixture: Mixture, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
    """The mixture applied to v [B, tokens, C], without ever storing a map; q, k are the run's own."""
    out = attend(mixture.q, mixture.k, v)
    own = mixture.own
    if not isinstance(own, Tensor) and own == 0.0:
        return out
    return torch.lerp(out, attend(q, k, v), own)


def mix_rows(parts: list[Mixture]) -> Mixture:
    """One mixture for the rows of several, one after the other."""
    q, k = torch.cat([part.q for part in parts]), torch.cat([part.k for part in parts])
    if all(not isinstance(part.own, Tensor) and part.own == 0.0 for part in parts):
        return Mixture(q, k)
    own = [torch.as_tensor(part.own, dtype=q.dtype, device=q.device).expand(len(part.q), 1, 1) for part in parts]
    return Mixture(q, k, torch.cat(own))
