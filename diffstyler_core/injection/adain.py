"""Adaptive instance normalisation (AdaIN: Huang and Belongie 2017): one tensor with the statistics of another."""

from __future__ import annotations

from torch import Tensor

LEAST_SPREAD = 1e-8
"""A channel that is as good as constant has no contrast to scale, and takes the style's mean alone."""


def adain(x: Tensor, style: Tensor, dims: tuple[int, ...]) -> Tensor:
    """std(style) (x - mean(x)) / std(x) + mean(style), each over ``dims``.

    Latents [B, C, H, W] take dims (-2, -1), tokens [B, tokens, C] take (-2,). The sizes along dims may differ.
    """
    mean, spread = x.mean(dims, keepdim=True), x.std(dims, keepdim=True).clamp(min=LEAST_SPREAD)
    return (x - mean) / spread * style.std(dims, keepdim=True) + style.mean(dims, keepdim=True)


def adain_latent(content: Tensor, style: Tensor, share: float | Tensor = 1.0) -> Tensor:
    """Start latents [B, C, h, w] with the style's mean and contrast per channel (StyleID's initial latent AdaIN).

    share: how much of it, a number, [h, w] or [B, h, w]; 0 leaves the content's latent bit for bit. The statistics
    are those of the whole latents in any case.
    """
    changed = adain(content.float(), style.to(content.device).float(), (-2, -1)).to(content)
    amount = share.unsqueeze(-3).to(content) if isinstance(share, Tensor) else share
    return content + amount * (changed - content)
