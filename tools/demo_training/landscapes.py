"""Landscapes from fractal curves: sky, clouds, sun, mountains, sea, fields, trees, towns."""

import numpy as np

from .fields import Field, Rng, blur, colour, grid, hue, line_noise, mix, noise, ramp, step

SKIES = (
    ((0.60, 0.05), (0.57, 0.06)),  # day
    ((0.75, 0.08), (0.06, 0.05)),  # evening
    ((0.63, 0.04), (0.90, 0.06)),  # dawn
    ((0.55, 0.08), (0.12, 0.04)),  # haze
)


def sky(size: int, rng: Rng) -> tuple[Field, Field]:
    """A sky and the colour of its light."""
    x, y = grid(size)
    (top, a), (low, b) = SKIES[rng.integers(len(SKIES))]
    colours = [hue(rng, top, a, (0.3, 0.8), (0.3, 0.95)), hue(rng, low, b, (0.1, 0.7), (0.75, 1.0))]
    out = ramp(np.clip((y + 1) / rng.uniform(1.0, 2.0), 0, 1), colours)
    sun = np.hypot(x - rng.uniform(-0.9, 0.9), y - rng.uniform(-0.9, 0.1))
    glow = np.exp(-sun / rng.uniform(0.1, 0.5)) * rng.uniform(0.2, 0.8)
    out = mix(out, np.array([1.0, 0.95, 0.8]), np.clip(glow + step(0.11, 0.09, sun) * rng.random(), 0, 1))
    cover = noise(size, rng, rng.uniform(1.3, 2.0), rng.uniform(1.0, 3.5))
    clouds = step(rng.uniform(0.4, 0.7), 1.0, cover) * rng.uniform(0.0, 1.0)
    shade = 0.75 + 0.25 * np.roll(cover, 4, 0)
    return mix(out, (colours[1] * 0.3 + 0.7) * shade[..., None], clouds), colours[1]


def ridge(size: int, rng: Rng, height: float, rough: float, slope: float = 1.5) -> Field:
    """Coverage of everything below a fractal horizon at y = `height`."""
    _, y = grid(size)
    edge = height - rough * (line_noise(size, rng, slope) - 0.3)
    return step(-0.01, 0.01, y - edge[None])


def mountains(size: int, rng: Rng) -> Field:
    out, light = sky(size, rng)
    layers = rng.integers(2, 5)
    base = colour(rng, (0.1, 0.6), (0.1, 0.5))
    horizon = rng.uniform(-0.3, 0.3)
    for k in range(layers):
        near = (k + 1) / layers
        cover = ridge(size, rng, horizon + k * rng.uniform(0.15, 0.3), rng.uniform(0.3, 1.0) * (1.2 - 0.6 * near))
        relief = noise(size, rng, rng.uniform(1.3, 1.9))
        slope = np.clip(0.5 + 6 * (np.roll(relief, 2, 1) - relief), 0, 1.4)
        rock = (light * (1 - near) * 0.7 + base * (0.4 + 0.6 * near)) * (0.55 + 0.6 * slope[..., None])
        if rng.random() < 0.4:
            _, y = grid(size)
            rock = mix(
                rock,
                np.full(3, 0.93) * (0.6 + 0.4 * slope[..., None]),
                step(horizon + 0.1, horizon - 0.2, y + 0.3 * relief),
            )
        out = mix(out, rock, cover)
    return out


def sea(size: int, rng: Rng) -> Field:
    out, light = sky(size, rng)
    x, y = grid(size)
    horizon = rng.uniform(-0.2, 0.4)
    if rng.random() < 0.6:
        land = ridge(size, rng, horizon - 0.03, rng.uniform(0.1, 0.5), 1.6) * (y < horizon)
        out = mix(out, colour(rng, (0.1, 0.5), (0.15, 0.5)) * (0.6 + 0.5 * noise(size, rng)[..., None]), land)
    depth = np.clip((y - horizon) / (1 - horizon), 1e-3, 1)
    waves = noise(size, rng, 1.0, 4.0)
    rows = np.clip(
        (horizon + 1) / 2 * size - (np.arange(size) - (horizon + 1) / 2 * size) * rng.uniform(0.5, 1.0), 0, size - 1
    )
    mirror = out[rows.astype(int)]
    water = hue(rng, 0.53, 0.1, (0.3, 0.8), (0.2, 0.6)) * (0.6 + 0.8 * waves[..., None] * depth[..., None] ** 0.3)
    water = mix(water, mirror, rng.uniform(0.2, 0.8) * (1 - 0.7 * depth))
    water = mix(water, light, step(0.75, 1.0, waves) * rng.uniform(0, 0.7))
    out = mix(out, water, step(horizon - 0.006, horizon + 0.006, y))
    for _ in range(rng.integers(0, 4)):
        out = boat(out, x, y, rng, horizon)
    return out


def boat(out: Field, x: Field, y: Field, rng: Rng, horizon: float) -> Field:
    cx, cy, s = rng.uniform(-0.8, 0.8), rng.uniform(horizon + 0.05, 0.8), rng.uniform(0.06, 0.2)
    u, v = (x - cx) / s, (y - cy) / s
    hull = (v > 0) & (v < 0.35) & (abs(u) < 1 - v)
    sail = (v < -0.05) & (v > -1.6) & (u > 0.05) & (u < 0.9 * (1.6 + v) / 1.6)
    out = mix(out, colour(rng, (0.2, 0.8), (0.1, 0.5)), hull.astype(float))
    return mix(out, colour(rng, (0.0, 0.7), (0.7, 1.0)), sail.astype(float))


def tree(out: Field, rng: Rng, cx: float, foot: float, s: float, leaf: Field) -> Field:
    size = out.shape[0]
    x, y = grid(size)
    trunk = step(0.1 * s, 0.07 * s, abs(x - cx + 0.02 * np.sin(9 * y))) * (y < foot) * (y > foot - s)
    out = mix(out, np.array([0.3, 0.2, 0.12]) * (0.6 + 0.6 * noise(size, rng)[..., None]), trunk)
    texture = noise(size, rng, 0.7)
    if rng.random() < 0.4:  # a fir
        v = (foot - 0.15 * s - y) / (1.6 * s)
        crown = (
            step(0, 0.08, 0.55 * s * (1 - v) * (0.7 + 0.3 * ((v * 5) % 1)) - abs(x - cx) + 0.06 * s * (texture - 0.5))
            * (v > 0)
            * (v < 1)
        )
    else:
        crown = np.zeros_like(x)
        for _ in range(7):
            r = s * rng.uniform(0.25, 0.5)
            px, py = cx + s * rng.normal(0, 0.33), foot - s * rng.uniform(0.8, 1.6)
            crown = np.maximum(
                crown, step(0.06 * s, -0.06 * s, np.hypot(x - px, y - py) - r + 0.5 * s * (texture - 0.5))
            )
    lit = 0.45 + 0.75 * texture + 0.25 * np.clip((cx - x) / s, -1, 1)
    return mix(out, leaf * lit[..., None], crown)


def meadow(size: int, rng: Rng) -> Field:
    out, light = sky(size, rng)
    _, y = grid(size)
    ground = hue(rng, 0.25, 0.12, (0.3, 0.8), (0.25, 0.7))
    top = rng.uniform(-0.1, 0.4)
    if rng.random() < 0.7:
        out = mix(out, light * 0.5 + ground * 0.3, ridge(size, rng, top - 0.05, rng.uniform(0.1, 0.6), 1.7))
    for k in range(rng.integers(1, 4)):
        texture = noise(size, rng, rng.uniform(0.4, 1.2), rng.uniform(0.4, 3))
        field = ground * rng.uniform(0.7, 1.3) * (0.6 + 0.7 * texture[..., None])
        out = mix(out, np.clip(field, 0, 1), ridge(size, rng, top + 0.22 * k, 0.3, 2.2))
    feet = np.sort(rng.uniform(top + 0.1, 0.95, rng.integers(0, 7)))
    for foot in feet:
        leaf = hue(rng, 0.25, 0.15, (0.4, 0.8), (0.2, 0.7))
        out = tree(out, rng, rng.uniform(-1, 1), foot, 0.12 + 0.45 * (foot - top), leaf)
    if rng.random() < 0.3:
        dots = (rng.random((size, size)) < 0.03) * (y > top + 0.3)
        out = mix(out, colour(rng, (0.5, 1), (0.7, 1)), np.clip(3 * blur(dots.astype(float), 0.8), 0, 1))
    return out


def town(size: int, rng: Rng) -> Field:
    out, light = sky(size, rng)
    x, y = grid(size)
    wall = colour(rng, (0.1, 0.5), (0.4, 0.9))
    street = rng.uniform(0.4, 0.9)
    plaster = 0.85 + 0.2 * noise(size, rng, 0.8)[..., None]
    for k in range(3):
        left = -1.1
        while left < 1:
            width, height = rng.uniform(0.15, 0.5), rng.uniform(0.2, 1.3) * (1.1 - 0.25 * k)
            u, v = (x - left) / width, (street - y) / height
            body = (u > 0) & (u < 1) & (v < 1) & (v > 0)
            paint = np.clip(wall * rng.uniform(0.6, 1.2) + rng.normal(0, 0.08, 3), 0, 1) * (0.6 + 0.4 * u[..., None])
            columns, rows = rng.integers(2, 5), rng.integers(2, 8)
            window = (
                ((u * columns) % 1 > 0.3) & ((u * columns) % 1 < 0.7) & ((v * rows) % 1 > 0.3) & ((v * rows) % 1 < 0.75)
            )
            glass = light * 0.9 if rng.random() < 0.3 else np.array([0.15, 0.18, 0.25]) * rng.uniform(0.5, 2)
            paint = mix(paint, glass, window.astype(float))
            out = mix(out, mix(light, paint * plaster, np.full_like(x, 0.4 + 0.3 * k)), body.astype(float))
            if rng.random() < 0.6:
                roof = (v >= 1) & (v < 1.3) & (abs(u - 0.5) < 0.55 * (1.3 - v) / 0.3)
                out = mix(out, hue(rng, 0.03, 0.05, (0.4, 0.8), (0.3, 0.7)), roof.astype(float))
            left += width
    ground = colour(rng, (0.0, 0.3), (0.2, 0.6)) * (0.7 + 0.5 * noise(size, rng, 0.9, 3.0)[..., None])
    return mix(out, ground, step(street - 0.01, street + 0.01, y))


SCENES = {"mountains": mountains, "the sea": sea, "trees in a meadow": meadow, "houses": town}
