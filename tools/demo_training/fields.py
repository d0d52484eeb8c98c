"""Small arrays that every renderer needs: grids, noise, palettes, shapes. Pictures are float [H, W, 3] in 0..1."""

import colorsys

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Rng = np.random.Generator
Field = NDArray[np.floating]  # [H, W] or [H, W, 3]


def grid(size: int) -> tuple[Field, Field]:
    """x to the right and y downwards, both -1..1."""
    line = np.linspace(-1, 1, size)
    x, y = np.meshgrid(line, line)
    return x, y


def noise(size: int, rng: Rng, slope: float = 1.0, stretch: float = 1.0) -> Field:
    """Fractal noise in 0..1 with amplitude spectrum 1/f^slope; `stretch` > 1 draws it out sideways."""
    fy = np.fft.fftfreq(size)[:, None] / stretch
    fx = np.fft.rfftfreq(size)[None] * stretch
    amplitude = 1 / np.maximum(np.hypot(fx, fy), 1 / size) ** slope
    amplitude[0, 0] = 0
    spectrum = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    field = np.fft.irfft2(spectrum, (size, size))
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / (high - low + 1e-9), 0, 1)


def line_noise(size: int, rng: Rng, slope: float = 1.5) -> Field:
    """A fractal curve [size] in 0..1."""
    f = np.maximum(np.fft.rfftfreq(2 * size), 0.5 / size)
    curve = np.fft.irfft(f**-slope * np.exp(2j * np.pi * rng.random(f.size)), 2 * size)[:size]
    return (curve - curve.min()) / (np.ptp(curve) + 1e-9)


def step(edge0: float, edge1: float, x: Field) -> Field:
    """Smooth step from 0 at edge0 to 1 at edge1."""
    t = np.clip((x - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Field, b: Field, weight: Field) -> Field:
    """a where weight is 0, b where it is 1; a weight [H, W] is spread over colours."""
    w = weight[..., None] if np.ndim(weight) == 2 else weight
    return a * (1 - w) + b * w


def colour(rng: Rng, saturation: tuple[float, float] = (0.1, 0.8), value: tuple[float, float] = (0.2, 1.0)) -> Field:
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def hue(rng: Rng, centre: float, spread: float, saturation: tuple[float, float], value: tuple[float, float]) -> Field:
    h = (centre + rng.uniform(-spread, spread)) % 1
    return np.array(colorsys.hsv_to_rgb(h, rng.uniform(*saturation), rng.uniform(*value)))


def ramp(field: Field, colours: list[Field]) -> Field:
    """Colours [3] spread evenly over field values 0..1."""
    at = np.linspace(0, 1, len(colours))
    table = np.stack(colours)
    return np.stack([np.interp(field, at, table[:, c]) for c in range(3)], -1)


def ellipse(
    x: Field, y: Field, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, soft: float = 0.02
) -> Field:
    """Coverage 0..1 of a filled ellipse."""
    c, s = np.cos(angle), np.sin(angle)
    u, v = ((x - cx) * c + (y - cy) * s) / rx, (-(x - cx) * s + (y - cy) * c) / ry
    width = soft / min(rx, ry)
    return step(1 + width, 1 - width, np.hypot(u, v))


def blur(image: Field, sigma: float) -> Field:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim], mode="nearest")
