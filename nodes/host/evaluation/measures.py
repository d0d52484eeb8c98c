"""Every figure of one result: against its content and its styles, whole and by region."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ....diffstyler_core.metrics.colour import colour_distance, colour_quantiles
from ....diffstyler_core.metrics.pixels import NotAvailable, gradient_correlation, psnr, rms, total_variation
from ....diffstyler_core.metrics.texture import filter_grams, gram_distance
from ..networks.clip_scores import ClipScores, similarity
from ..networks.perceptual import Lpips, ssim

T = TypeVar("T")


class Metric(NamedTuple):
    """name: what people read. better: 'higher', 'lower', or '' where neither is."""

    key: str
    name: str
    better: str = ""

    @property
    def words(self) -> str:
        """The name and which direction is better."""
        return f"{self.name} ({self.better} is better)" if self.better else self.name


PSNR = Metric("psnr", "PSNR, dB", "higher")
SSIM = Metric("ssim", "SSIM", "higher")
L2 = Metric("l2", "L2, root mean square", "lower")
LPIPS = Metric("lpips", "LPIPS", "lower")
EDGES = Metric("edges", "edge agreement", "higher")
DIRECTION = Metric("clip_direction", "CLIP direction", "higher")
VARIATION = Metric("total_variation", "total variation")
CONTENT_VARIATION = Metric("content_variation", "content's total variation")
COLOUR = Metric("colour", "colour distance, delta E", "lower")
TEXTURE = Metric("gram_filters", "Gram distance, filter bank", "lower")
LAYERS = Metric("gram_lpips", "Gram distance, LPIPS network", "lower")
CLIP = Metric("clip_style", "CLIP similarity", "higher")

CONTENT, RESULT, STYLE = "content", "result alone", "style"


class Figure(NamedTuple):
    """One number, or why there is none."""

    metric: Metric
    against: str
    region: str
    value: float | None
    why: str = ""


class Region(NamedTuple):
    """Columns of the picture, and a mask [H, W] of the picture where only its part counts."""

    name: str
    columns: slice = slice(None)
    mask: Tensor | None = None

    def of(self, picture: Tensor) -> Tensor:
        """The picture [H, W, 3] in the region's columns."""
        return picture[:, self.columns]

    def weight(self, picture: Tensor) -> Tensor:
        """[H, w]: what each of its pixels counts."""
        part = self.of(picture)
        return torch.ones(part.shape[:2]) if self.mask is None else self.mask[:, self.columns]


class Tools(NamedTuple):
    """What needs weights, or why it is not there."""

    lpips: Lpips | NotAvailable
    clip: ClipScores | NotAvailable


class Look(NamedTuple):
    """What a picture looks like, apart from where in it things are. Each may be missing, with the reason."""

    colours: Tensor | NotAvailable
    textures: list[Tensor | None] | NotAvailable
    layers: list[Tensor | None] | NotAvailable
    meaning: Tensor | NotAvailable


def attempt(compute: Callable[[], T]) -> T | NotAvailable:
    """The value, or why there is none."""
    try:
        return compute()
    except NotAvailable as reason:
        return NotAvailable(str(reason))


def need(value: Any) -> Any:
    """The value itself. Raises NotAvailable with the reason where it is missing."""
    if isinstance(value, NotAvailable):
        raise NotAvailable(str(value))
    return value


def regions_of(width: int, mask: Tensor | None, halves: bool) -> list[Region]:
    """Whole; inside and outside of a mask; left and right half (the middle column of an odd width is right)."""
    found = [Region("whole")]
    if mask is not None:
        found += [Region("inside", mask=mask), Region("outside", mask=1.0 - mask)]
    if halves:
        found += [Region("left half", slice(0, width // 2)), Region("right half", slice(width // 2, width))]
    return found


def look_at(picture: Tensor, tools: Tools, region: Region) -> Look:
    """Colours, textures, the LPIPS network's Gram matrices and CLIP's embedding of a picture [H, W, 3]."""
    part, weight = region.of(picture), region.weight(picture)
    return Look(
        attempt(lambda: colour_quantiles(part, weight)),
        attempt(lambda: filter_grams(part, weight)),
        attempt(lambda: need(tools.lpips).grams(part, region.mask)),
        attempt(lambda: need(tools.clip).embed(part, region.mask)),
    )


def look_at_style(style: Tensor, shorter: int, tools: Tools) -> Look:
    """A whole style picture; for textures its shorter side is scaled to the result's (bilinear, antialiased)."""
    scale = shorter / min(style.shape[:2])
    size = [max(1, round(side * scale)) for side in style.shape[:2]]
    batch = style.movedim(-1, 0)[None]
    scaled = functional.interpolate(batch, size, mode="bilinear", antialias=True)[0].movedim(0, -1)
    return Look(
        attempt(lambda: colour_quantiles(style, torch.ones(style.shape[:2]))),
        attempt(lambda: filter_grams(scaled, torch.ones(scaled.shape[:2]))),
        attempt(lambda: need(tools.lpips).grams(scaled, None)),
        attempt(lambda: need(tools.clip).embed(style)),
    )


def against_content(result: Tensor, content: Tensor, tools: Tools, region: Region, look: Look) -> Iterator[Figure]:
    """What was kept. Pictures [H, W, 3] of one size, in 0..1; look: the result's in that region."""
    a, b, w = region.of(result), region.of(content), region.weight(result)

    def direction() -> float:
        clip = need(tools.clip)
        return clip.direction_similarity(clip.embed(b, region.mask), need(look.meaning))

    computed: list[tuple[Metric, str, Callable[[], float]]] = [
        (PSNR, CONTENT, lambda: psnr(a, b, w)),
        (SSIM, CONTENT, lambda: ssim(a, b, w)),
        (L2, CONTENT, lambda: rms(a, b, w)),
        (LPIPS, CONTENT, lambda: need(tools.lpips).distance(a, b, region.mask)),
        (EDGES, CONTENT, lambda: gradient_correlation(a, b, w)),
        (DIRECTION, CONTENT, direction),
        (VARIATION, RESULT, lambda: total_variation(a, w)),
        (CONTENT_VARIATION, CONTENT, lambda: total_variation(b, w)),
    ]
    for metric, against, compute in computed:
        yield figure(metric, against, region, compute)


def against_style(look: Look, style: Look, name: str, region: Region) -> list[Figure]:
    """How near the style is."""
    computed: list[tuple[Metric, Callable[[], float]]] = [
        (COLOUR, lambda: colour_distance(need(look.colours), need(style.colours))),
        (TEXTURE, lambda: gram_distance(need(look.textures), need(style.textures))),
        (LAYERS, lambda: gram_distance(need(look.layers), need(style.layers))),
        (CLIP, lambda: similarity(need(look.meaning), need(style.meaning))),
    ]
    return [figure(metric, name, region, compute) for metric, compute in computed]


def figure(metric: Metric, against: str, region: Region, compute: Callable[[], float]) -> Figure:
    """The figure, with its reason where it has no value."""
    if region.mask is not None and not region.mask.any():
        which = "the mask is empty" if region.name == "inside" else "the mask covers everything"
        return Figure(metric, against, region.name, None, which)
    value = attempt(compute)
    if isinstance(value, NotAvailable):
        return Figure(metric, against, region.name, None, str(value))
    return Figure(metric, against, region.name, value)


def over_styles(figures: Sequence[Figure]) -> list[Figure]:
    """The best and the mean of one metric's figures of several styles in one region."""
    values = [f.value for f in figures if f.value is not None]
    first = figures[0]
    if not values:
        return [first._replace(against=name) for name in ("best style", "mean of styles")]
    best = max(values) if first.metric.better == "higher" else min(values)
    return [
        first._replace(against="best style", value=best),
        first._replace(against="mean of styles", value=sum(values) / len(values)),
    ]


def measure(
    result: Tensor, content: Tensor, styles: Sequence[Look], tools: Tools, regions: Sequence[Region]
) -> list[Figure]:
    """All figures of one result [H, W, 3] against its content of the same size and its styles."""
    found: list[Figure] = []
    for region in regions:
        look = look_at(result, tools, region)
        found += against_content(result, content, tools, region, look)
        by_style = [
            against_style(look, style, STYLE if len(styles) == 1 else f"{STYLE} {i}", region)
            for i, style in enumerate(styles, 1)
        ]
        for figures in zip(*by_style, strict=True):
            found += figures if len(styles) == 1 else [*figures, *over_styles(figures)]
    return found
