"""Every figure of one result: against its content and its styles, whole and by region."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from ..metrics.colour import colour_distance
from ..metrics.pixels import gradient_correlation, psnr, rms, total_variation
from ..metrics.ssim import ssim
from ..metrics.texture import gram_distance
from .appearance import Appearance, Networks, appearance
from .metric import (
    CLIP,
    COLOUR,
    CONTENT,
    CONTENT_VARIATION,
    DIRECTION,
    EDGES,
    L2,
    LAYERS,
    LPIPS,
    NOTHING,
    PSNR,
    SSIM,
    STYLE,
    TEXTURE,
    VARIATION,
    Figure,
    Reference,
    figure,
    over_styles,
)
from .regions import Region


def against_content(
    result: Tensor, content: Tensor, networks: Networks, region: Region, seen: Appearance
) -> list[Figure]:
    """What was kept. Pictures [H, W, 3] of one size, in 0..1; seen: the result's appearance in that region."""
    a, b, w = region.of(result), region.of(content), region.weight(result)
    return [
        figure(PSNR, CONTENT, region, psnr, a, b, w),
        figure(SSIM, CONTENT, region, ssim, a, b, w),
        figure(L2, CONTENT, region, rms, a, b, w),
        figure(LPIPS, CONTENT, region, lambda lpips: lpips.distance(a, b, region.mask), networks.lpips),
        figure(EDGES, CONTENT, region, gradient_correlation, a, b, w),
        figure(
            DIRECTION,
            CONTENT,
            region,
            lambda clip, result: clip.direction_similarity(clip.embed(b, region.mask), result),
            networks.clip,
            seen.embedding,
        ),
        figure(VARIATION, NOTHING, region, total_variation, a, w),
        figure(CONTENT_VARIATION, CONTENT, region, total_variation, b, w),
    ]


def against_style(seen: Appearance, style: Appearance, against: Reference, region: Region) -> list[Figure]:
    """How near the style is."""
    return [
        figure(COLOUR, against, region, colour_distance, seen.colours, style.colours),
        figure(TEXTURE, against, region, gram_distance, seen.textures, style.textures),
        figure(LAYERS, against, region, gram_distance, seen.layers, style.layers),
        figure(CLIP, against, region, _cosine, seen.embedding, style.embedding),
    ]


def _cosine(embedding: Tensor, other: Tensor) -> float:
    """CLIP image similarity, -1..1. Higher: more like the style."""
    return functional.cosine_similarity(embedding, other, dim=0).item()


def measure(
    result: Tensor, content: Tensor, styles: Sequence[Appearance], networks: Networks, region: Region
) -> list[Figure]:
    """All figures of one result [H, W, 3] in a region, against its content of the same size and its styles."""
    seen = appearance(result, networks, region)
    found = against_content(result, content, networks, region, seen)
    if len(styles) == 1:
        return found + against_style(seen, styles[0], STYLE, region)
    each = [
        against_style(seen, style, Reference(f"{STYLE.name} {number}", of_style=True), region)
        for number, style in enumerate(styles, 1)
    ]
    for figures in zip(*each, strict=True):
        found += [*figures, *over_styles(list(figures))]
    return found
