"""Regions: how the styles share a picture, and what is outside of all of them (DiffStyler 2026, eqs. 7, 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Outside = Literal["content", "regenerate"]
OUTSIDES: tuple[Outside, ...] = ("content", "regenerate")
ROUNDING = 1e-5
"""What masks that meet lack to one after resampling. It is no region of its own, which would cost evaluations."""


class Regions(NamedTuple):
    """Shares that sum to one at every latent pixel; of a clip whose masks differ by frame, in every frame.

    styles: [N, h, w] or [N, frames, h, w], M_i, normalised where the masks' sum exceeds 1.
    rest: [h, w] or [frames, h, w], 1 - sum_i M_i: what no style covers.
    """

    styles: Tensor
    rest: Tensor

    @property
    def inside(self) -> Tensor:
        """Like ``rest``: sum_i M_i, the share of all styles together."""
        return 1.0 - self.rest

    def among_styles(self) -> Tensor:
        """Like ``styles``: each style's share of what the styles cover; 0 where none does."""
        total = self.styles.sum(0)
        return torch.where(total > 0, self.styles / total.clamp(min=1e-30), torch.zeros(()))


def style_of_the_rest(masks: Sequence[Tensor | None], labels: Sequence[str] = ()) -> int | None:
    """Which style has no mask and takes what the others leave; None when all have one.

    labels: what the error calls the styles, by default "style 1", ...
    Raises ValueError when two have none: which of them would get the rest?
    """
    rests = [i for i, mask in enumerate(masks) if mask is None]
    if len(rests) > 1:
        first, second = (labels[i] if labels else f"style {i + 1}" for i in rests[:2])
        raise ValueError(
            f"{first} and {second} both have no mask, and only one can take the rest of the "
            "picture. Give all but one a mask, or let them take turns with a LoRA Switch Schedule."
        )
    return rests[0] if rests else None


def share(masks: Sequence[Tensor | None], height: int, width: int) -> Regions:
    """Regions of masks [h, w] or [frames, h, w]; a style without a mask takes what the others leave.

    Raises ValueError when two styles have no mask.
    """
    rest_of = style_of_the_rest(masks)
    frames = next((mask.shape[:1] for mask in masks if mask is not None and mask.ndim == 3), ())
    shape = (*frames, height, width)
    own = torch.stack([torch.zeros(shape) if mask is None else mask.expand(shape) for mask in masks])
    total = own.sum(0)
    full = total > 1.0 - ROUNDING
    styles = own / torch.where(full, total, 1.0)
    rest = torch.where(full, 0.0, 1.0 - total)
    if rest_of is not None:
        styles[rest_of] = rest
        rest = torch.zeros_like(rest)
    return Regions(styles, rest)


def over_channels(share: Tensor) -> Tensor:
    """A share [h, w] or [frames, h, w] as it multiplies latents [B, C, h, w]."""
    return share.unsqueeze(-3)


def fuse(predictions: Sequence[Tensor], shares: Sequence[Tensor]) -> Tensor:
    """sum_i M_i eps_i of predictions [B, C, h, w] and shares [h, w] or [B, h, w] that sum to one (eq. 8).

    Holds for eps, v and x0 alike: at one latent and level they are linear in each other.
    """
    pairs = zip(predictions, shares, strict=True)
    weights = torch.stack([over_channels(share).to(prediction).expand_as(prediction) for prediction, share in pairs])
    return (torch.stack(list(predictions)) * weights).sum(0)


def localize(styled: Tensor, content: Tensor, inside: Tensor) -> Tensor:
    """z_hat = M z* + (1 - M) z [B, C, h, w]: outside, the content bit for bit (eq. 7)."""
    m = over_channels(inside).to(styled)
    return m * styled + (1.0 - m) * content.to(styled)


def as_seen_from(x: Tensor, there: Tensor, x0: Tensor, sigma: float, after: float) -> Tensor:
    """The x0 that takes a first-order sampler from its x to where DDIM takes ``there``, all [B, C, h, w].

    there: what the model was shown instead of x, localized by eq. 7; x0: what it made of that. Both latents are
    variance-exploding, at ``sigma``; ``after`` is the noise level that the sampler goes to next, below ``sigma``.
    Where nothing was replaced it is x0 itself, bit for bit.
    """
    return x0 + after / (after - sigma) * (x - there)


def put_back(styled: Tensor, content: Tensor, inside: Tensor) -> Tensor:
    """A latent [B, C, h, w] with the content bit for bit where no style is."""
    return torch.where(over_channels(inside).to(styled) == 0.0, content.to(styled), styled)
