"""What a picture looks like, apart from where in it things are."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..metrics.available import NotAvailable, value_or_reason
from ..metrics.colour import colour_quantiles
from ..metrics.texture import filter_grams
from .regions import Region


class LpipsNetwork(Protocol):
    """LPIPS over some backbone. Pictures [H, W, 3] in 0..1, masks [H, W]."""

    def distance(self, picture: Tensor, reference: Tensor, mask: Tensor | None) -> float:
        """0 or more, lower is closer."""
        ...

    def grams(self, picture: Tensor, mask: Tensor | None) -> list[Tensor | None]:
        """Gram matrix of each of the backbone's layers."""
        ...


class ClipNetwork(Protocol):
    """CLIP's image tower, and the direction between two prompts."""

    def embed(self, picture: Tensor, mask: Tensor | None = None) -> Tensor:
        """[D], of length 1."""
        ...

    def direction_similarity(self, content: Tensor, result: Tensor) -> float:
        """Of two embeddings, -1..1."""
        ...


class Networks(NamedTuple):
    """What needs weights, or why it is not there."""

    lpips: LpipsNetwork | NotAvailable
    clip: ClipNetwork | NotAvailable


class Appearance(NamedTuple):
    """Colours, textures, the LPIPS' Gram matrices and CLIP's embedding; each may be missing, with its reason."""

    colours: Tensor | NotAvailable
    textures: list[Tensor | None] | NotAvailable
    layers: list[Tensor | None] | NotAvailable
    embedding: Tensor | NotAvailable


def appearance(picture: Tensor, networks: Networks, region: Region) -> Appearance:
    """Of a picture [H, W, 3] in a region."""
    part, weight = region.of(picture), region.weight(picture)
    return Appearance(
        value_or_reason(colour_quantiles, part, weight),
        value_or_reason(filter_grams, part, weight),
        value_or_reason(lambda lpips: lpips.grams(part, region.mask), networks.lpips),
        value_or_reason(lambda clip: clip.embed(part, region.mask), networks.clip),
    )


def style_appearance(style: Tensor, shorter: int, networks: Networks) -> Appearance:
    """Of a whole style picture; for textures its shorter side is scaled to the result's (bilinear, antialiased)."""
    scale = shorter / min(style.shape[:2])
    size = [max(1, round(side * scale)) for side in style.shape[:2]]
    batch = style.movedim(-1, 0)[None]
    scaled = functional.interpolate(batch, size, mode="bilinear", antialias=True)[0].movedim(0, -1)
    return Appearance(
        value_or_reason(colour_quantiles, style, torch.ones(style.shape[:2])),
        value_or_reason(filter_grams, scaled, torch.ones(scaled.shape[:2])),
        value_or_reason(lambda lpips: lpips.grams(scaled, None), networks.lpips),
        value_or_reason(lambda clip: clip.embed(style), networks.clip),
    )
