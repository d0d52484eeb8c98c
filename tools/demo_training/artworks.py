"""Pictures redrawn in a technique. Each takes and gives float [H, W, 3] in 0..1."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, spatial

from .fields import Field, Rng, blur, colour, grid, hue, mix, noise, ramp, step


def luma(image: Field) -> Field:
    return image @ np.array([0.299, 0.587, 0.114])


def palette(rng: Rng, count: int) -> list[Field]:
    """Colours from dark to light around one or two hues."""
    start, spread = rng.random(), rng.uniform(0.05, 0.6)
    values = np.linspace(rng.uniform(0.05, 0.25), rng.uniform(0.85, 1.0), count)
    return [hue(rng, start + spread * k / count, 0.04, (0.25, 0.95), (v, v)) for k, v in enumerate(values)]


def recolour(image: Field, rng: Rng, strength: float) -> Field:
    """Pull the picture towards a palette by its brightness."""
    return mix(image, ramp(luma(image), palette(rng, 5)), np.full(image.shape[:2], strength))


def paper(size: int, rng: Rng, tint: Field) -> Field:
    grain = noise(size, rng, 0.4)
    return np.clip(tint * (0.94 + 0.08 * grain)[..., None], 0, 1)


def _direction(image: Field, sigma: float) -> Field:
    """Angle along the edges."""
    grey = blur(luma(image), 1.0)
    gx, gy = ndimage.sobel(grey, 1), ndimage.sobel(grey, 0)
    xx, yy, xy = blur(gx * gx, sigma), blur(gy * gy, sigma), blur(gx * gy, sigma)
    return 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2


def strokes(
    image: Field, rng: Rng, length: float, width: float, layers: int = 3, vivid: float = 0.0, swirl: float = 0.3
) -> Field:
    """Brush strokes along the edges, big ones first, each with a bristle texture and a bright ridge."""
    size = image.shape[0]
    source = np.clip(recolour(image, rng, vivid), 0, 1)
    angle = _direction(image, size / 40) + swirl * 4 * (noise(size, rng, 1.8) - 0.5)
    out = blur(source, size / 30)
    for layer in range(layers):
        w = max(1.5, width * 0.6**layer)
        reach = int(length * 0.75**layer)
        smooth = blur(source, w * 0.7)
        count = min(4500, int(1.8 * size * size / (w * (reach + w))))
        _paint(out, smooth, angle, rng, count, reach, w)
    return np.clip(out, 0, 1)


def _paint(out: Field, source: Field, angle: Field, rng: Rng, count: int, reach: int, width: float) -> None:
    size = out.shape[0]
    half = int(reach / 2 + width) + 2
    line = np.arange(-half, half + 1)
    u, v = np.meshgrid(line, line)
    turns = 24
    masks = []
    for k in range(turns):
        a = np.pi * k / turns
        along, across = u * np.cos(a) + v * np.sin(a), v * np.cos(a) - u * np.sin(a)
        end = np.maximum(abs(along) - reach / 2, 0)
        cover = step(width / 2 + 0.7, width / 2 - 0.7, np.hypot(end, across))
        relief = 0.05 * np.sin(across * 2.6) + 0.10 * step(0, -width / 2, across) - 0.05
        masks.append((cover, relief))
    rows, columns = rng.integers(0, size, (2, count))
    tints = rng.normal(0, 0.045, (count, 3)) + rng.normal(0, 0.05, (count, 1))
    for y, x, tint in zip(rows, columns, tints, strict=True):
        cover, relief = masks[int(np.round(angle[y, x] / np.pi * turns)) % turns]
        y0, y1, x0, x1 = max(0, y - half), min(size, y + half + 1), max(0, x - half), min(size, x + half + 1)
        window = (slice(y0 - y + half, y1 - y + half), slice(x0 - x + half, x1 - x + half))
        c = 0.92 * cover[window][..., None]
        paint = source[y, x] + tint + relief[window][..., None]
        out[y0:y1, x0:x1] = out[y0:y1, x0:x1] * (1 - c) + paint * c


def oil(image: Field, rng: Rng) -> Field:
    vivid = np.clip((image - 0.5) * rng.uniform(1.0, 1.5) + 0.5, 0, 1)
    return strokes(
        vivid, rng, rng.uniform(14, 34), rng.uniform(4, 10), vivid=rng.choice([0.0, 0.3, 0.8]), swirl=rng.random()
    )


def dabs(image: Field, rng: Rng) -> Field:
    """Short bright touches, as in pointillism."""
    return strokes(image, rng, rng.uniform(2, 4), rng.uniform(3.5, 7), 2, rng.choice([0.0, 0.4]))


def hatching(image: Field, rng: Rng, ink: Field | None = None, tint: Field | None = None) -> Field:
    size = image.shape[0]
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    grey = blur(luma(image), 1.0)
    low, high = np.percentile(grey, (2, 98))
    grey = np.clip((grey - low) / (high - low + 1e-6), 0, 1)
    wobble, base, pitch = 5 * noise(size, rng, 1.6), rng.uniform(0, np.pi), rng.uniform(4.0, 7.0)
    dark = np.zeros_like(grey)
    for k, level in enumerate((0.85, 0.62, 0.42, 0.22)):
        a = base + (0, np.pi / 2, np.pi / 4, 3 * np.pi / 4)[k]
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a) + wobble) / pitch)
        thick = np.clip((level - grey) * 1.3, 0, 0.6)
        dark = np.maximum(dark, step(1 - thick, 1.1 - thick, wave + 0.1 * (thick > 0)) * (thick > 0))
    edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    dark = np.maximum(dark, step(0.5, 1.0, edges))
    ink = colour(rng, (0.0, 0.8), (0.0, 0.35)) if ink is None else ink
    tint = colour(rng, (0.0, 0.4), (0.75, 1.0)) if tint is None else tint
    return mix(paper(size, rng, tint), ink, 0.9 * dark)


def stipple(image: Field, rng: Rng) -> Field:
    size = image.shape[0]
    pitch = rng.uniform(4, 6)
    a = rng.uniform(0, np.pi)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    u, v = (x * np.cos(a) + y * np.sin(a)) / pitch, (y * np.cos(a) - x * np.sin(a)) / pitch
    radius = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    wanted = 0.68 * np.sqrt(1 - blur(luma(image), 1.2))
    ink, tint = colour(rng, (0.0, 1.0), (0.0, 0.5)), colour(rng, (0.0, 0.5), (0.8, 1.0))
    return mix(paper(size, rng, tint), ink, step(0.12, -0.12, radius - wanted))


def watercolour(image: Field, rng: Rng) -> Field:
    size = image.shape[0]
    wash = ndimage.median_filter(image, size=(9, 9, 1))
    dy, dx = (6 * (noise(size, rng, 1.2) - 0.5) for _ in range(2))
    y, x = np.mgrid[:size, :size]
    wash = np.stack(
        [ndimage.map_coordinates(wash[..., c], [y + dy, x + dx], order=1, mode="nearest") for c in range(3)], -1
    )
    levels = rng.integers(5, 9)
    wash = mix(wash, np.round(wash * levels) / levels, np.full((size, size), 0.6))
    edge = np.hypot(ndimage.sobel(luma(wash), 0), ndimage.sobel(luma(wash), 1))
    pigment = 0.25 + 0.5 * wash + 0.35 * (wash - luma(wash)[..., None])
    out = 1 - (1 - pigment) * (0.75 + 0.4 * noise(size, rng, 1.0) + 0.35 * np.clip(edge, 0, 1))[..., None]
    return np.clip(out, 0, 1) * paper(size, rng, np.array([1.0, 0.99, 0.95]))


def poster(image: Field, rng: Rng, colours: list[Field] | None = None) -> Field:
    """Flat colours by brightness and dark outlines."""
    chosen = palette(rng, int(rng.integers(3, 7))) if colours is None else colours
    grey = ndimage.median_filter(blur(luma(image), 1.5), 7)
    low, high = np.percentile(grey, (2, 98))
    level = np.clip((grey - low) / (high - low + 1e-6) * len(chosen), 0, len(chosen) - 1).astype(int)
    out = np.stack(chosen)[level]
    smooth = blur(luma(image), 1.8)
    edge = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    return mix(blur(out, 0.6), chosen[0] * 0.3, step(0.18, 0.32, edge))


def mosaic(image: Field, rng: Rng, count: int | None = None, joint: Field | None = None) -> Field:
    """Voronoi tiles with joints; each tile has one colour."""
    size = image.shape[0]
    points = rng.uniform(0, size, (int(rng.integers(250, 1200)) if count is None else count, 2))
    y, x = np.mgrid[:size, :size]
    distance, index = spatial.cKDTree(points).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    tile = index[:, 0].reshape(size, size)
    total = np.bincount(tile.ravel(), minlength=len(points)).clip(1)
    mean = np.stack([np.bincount(tile.ravel(), image[..., c].ravel(), len(points)) / total for c in range(3)], -1)
    mean = np.clip((mean - 0.5) * 1.25 + 0.5 + rng.normal(0, 0.05, mean.shape), 0, 1)
    gap = (distance[:, 1] - distance[:, 0]).reshape(size, size)
    joint = np.full(3, rng.choice([0.1, 0.9])) if joint is None else joint
    return mix(mean[tile], joint, step(1.8, 0.6, gap))


def pastel(image: Field, rng: Rng) -> Field:
    size = image.shape[0]
    chalk = strokes(image, rng, 18, 4.5, 2, 0.2, 0.2)
    tooth = step(0.15, 0.75, noise(size, rng, 0.3) + 0.25)
    return mix(
        paper(size, rng, colour(rng, (0.1, 0.4), (0.5, 0.9))), np.clip(0.25 + 0.8 * chalk, 0, 1), 0.35 + 0.6 * tooth
    )


def duotone(image: Field, rng: Rng) -> Field:
    return ramp(np.clip((luma(image) - 0.5) * 1.3 + 0.5, 0, 1), palette(rng, 3))


def woodcut(image: Field, rng: Rng) -> Field:
    size = image.shape[0]
    grey = blur(luma(image), 1.5)
    angle = blur(np.cos(_direction(image, size / 20)), 6)
    x, y = grid(size)
    wave = 0.5 + 0.5 * np.sin(rng.uniform(70, 130) * (y * angle + x * (1 - abs(angle))) + 4 * noise(size, rng, 1.6))
    threshold = (grey - np.percentile(grey, 5)) / (np.ptp(np.percentile(grey, (5, 95))) + 1e-6)
    dark = step(-0.08, 0.08, 0.25 + 0.55 * wave - threshold)
    return mix(paper(size, rng, colour(rng, (0.1, 0.6), (0.8, 1.0))), colour(rng, (0.0, 0.7), (0.0, 0.3)), dark)


TECHNIQUES: dict[str, tuple[str, Callable[[Field, Rng], Field]]] = {
    "oil": ("painting", oil),
    "dabs": ("painting", dabs),
    "hatching": ("drawing", hatching),
    "stipple": ("drawing", stipple),
    "watercolour": ("painting", watercolour),
    "poster": ("poster", poster),
    "mosaic": ("mosaic", mosaic),
    "pastel": ("drawing", pastel),
    "duotone": ("print", duotone),
    "woodcut": ("print", woodcut),
}


def artwork(image: Field, technique: str, seed: int) -> Field:  # [H, W, 3] in 0..1
    """`image` redrawn; the same seed gives the same picture."""
    if technique not in TECHNIQUES:
        raise ValueError(f"no technique {technique!r}; choose one of {', '.join(TECHNIQUES)}")
    return np.clip(TECHNIQUES[technique][1](image, np.random.default_rng(seed)), 0, 1)
