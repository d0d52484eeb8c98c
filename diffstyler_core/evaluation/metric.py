"""The figures by name, and one figure's value or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..metrics.available import NotAvailable, value_or_reason
from .regions import Region


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
FID, ARTFID = Metric("fid", "FID", "lower"), Metric("artfid", "ArtFID", "lower")


class Reference(NamedTuple):
    """What a result is held against. of_style: a style, or several taken together."""

    name: str
    of_style: bool = False


CONTENT, NOTHING, STYLE = Reference("content"), Reference("result alone"), Reference("style", of_style=True)
BEST, MEAN = (Reference(name, of_style=True) for name in ("best style", "mean of styles"))


class Figure(NamedTuple):
    """One number, or why there is none."""

    metric: Metric
    against: Reference
    region: str
    value: float | None
    why: str = ""


def figure(metric: Metric, against: Reference, region: Region, compute: Callable[..., float], *given: object) -> Figure:
    """The figure ``compute(*given)``, with its reason where it has no value."""
    value: Any = region.emptiness or value_or_reason(compute, *given)
    if isinstance(value, str | NotAvailable):
        return Figure(metric, against, region.name, None, str(value))
    return Figure(metric, against, region.name, value)


def over_styles(figures: list[Figure]) -> list[Figure]:
    """The best and the mean of one metric's figures of several styles in one region."""
    values = [f.value for f in figures if f.value is not None]
    first = figures[0]
    if not values:
        return [first._replace(against=together) for together in (BEST, MEAN)]
    best = max(values) if first.metric.better == "higher" else min(values)
    return [first._replace(against=BEST, value=best), first._replace(against=MEAN, value=sum(values) / len(values))]
