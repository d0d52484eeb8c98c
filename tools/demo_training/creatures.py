"""Faces, cats, birds and flowers out of shaded ellipses, and plain textures."""

import numpy as np

from .fields import Field, Rng, blur, colour, ellipse, grid, hue, mix, noise, ramp, step


def backdrop(size: int, rng: Rng) -> Field:
    """An out-of-focus background."""
    field = blur(noise(size, rng, rng.uniform(0.9, 2.0)), rng.uniform(0, 6))
    return np.clip(ramp(field, [colour(rng, (0.1, 0.6), (0.1, 1.0)) for _ in range(rng.integers(2, 4))]), 0, 1)


def shaded(cover: Field, paint: Field, rng: Rng, side: float) -> Field:
    """Paint with round shading: brighter towards `side` (-1 left, 1 right)."""
    size = cover.shape[0]
    soft = blur(cover, size / 14)
    slope = (np.roll(soft, 3, 1) - np.roll(soft, -3, 1)) * side + 0.6 * (np.roll(soft, -3, 0) - np.roll(soft, 3, 0))
    texture = 0.9 + 0.2 * noise(size, rng, 0.8)
    return np.clip(
        paint * np.clip(0.75 + 2.2 * slope + 0.35 * (soft - 0.5), 0.2, 1.3)[..., None] * texture[..., None], 0, 1
    )


def _place(size: int, rng: Rng) -> tuple[Field, Field, float]:
    x, y = grid(size)
    scale, angle = rng.uniform(0.5, 1.1), rng.normal(0, 0.15)
    x, y = (x - rng.uniform(-0.3, 0.3)) / scale, (y - rng.uniform(-0.2, 0.3)) / scale
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle), rng.choice([-1.0, 1.0])


def _eyes(out: Field, x: Field, y: Field, rng: Rng, gap: float, height: float, r: float, iris: Field) -> Field:
    look = rng.uniform(-0.3, 0.3) * r
    for side in (-gap, gap):
        out = mix(out, np.full(3, 0.93), ellipse(x, y, side, height, r, 0.65 * r))
        out = mix(out, iris, ellipse(x, y, side + look, height, 0.55 * r, 0.6 * r))
        out = mix(out, np.full(3, 0.03), ellipse(x, y, side + look, height, 0.28 * r, 0.32 * r))
        out = mix(out, np.full(3, 1.0), ellipse(x, y, side + look + 0.2 * r, height - 0.2 * r, 0.12 * r, 0.12 * r))
    return out


def face(size: int, rng: Rng) -> Field:
    out = backdrop(size, rng)
    x, y, side = _place(size, rng)
    skin = hue(rng, 0.06, 0.03, (0.25, 0.6), (0.35, 1.0))
    hair = hue(rng, 0.07, 0.06, (0.2, 0.8), (0.05, 0.8))
    cloth = colour(rng, (0.1, 0.9), (0.15, 0.9))
    w, long_hair = rng.uniform(0.38, 0.5), rng.random() < 0.5
    strands = 0.7 + 0.6 * noise(size, rng, 0.8, 0.2)[..., None]
    if long_hair:
        cover = ellipse(x, y, 0, 0.1, w + 0.18, 0.85, soft=0.06)
        out = mix(out, np.clip(shaded(cover, hair, rng, side) * strands, 0, 1), cover)
    body = ellipse(x, y, 0, 1.45, 0.95, 0.75)
    out = mix(out, shaded(body, cloth, rng, side), body)
    neck = ellipse(x, y, 0, 0.6, 0.2, 0.35)
    out = mix(out, shaded(neck, skin * 0.8, rng, side), neck)
    head = ellipse(x, y, 0, 0.05, w, 0.6)
    out = mix(out, shaded(head, skin, rng, side), head)
    for ear in (-w, w):
        out = mix(out, skin * 0.85, ellipse(x, y, ear, 0.08, 0.07, 0.13))
    cap = ellipse(x, y, 0, -0.2, w + 0.06, 0.48) * step(-0.12, -0.24, y + 0.25 * x * x - rng.uniform(-0.08, 0.05))
    out = mix(out, np.clip(shaded(cap, hair, rng, side) * strands, 0, 1), cap)
    out = _eyes(out, x, y, rng, 0.19, 0.02, 0.09, hue(rng, 0.4, 0.25, (0.3, 0.8), (0.2, 0.6)))
    for brow in (-0.19, 0.19):
        out = mix(out, hair * 0.7, ellipse(x, y, brow, -0.11, 0.11, 0.022, angle=0.2 * brow / 0.19))
    nose = ellipse(x, y, 0.02 * side, 0.16, 0.045, 0.13, soft=0.05)
    out = mix(out, skin * 0.72, 0.6 * nose)
    smile = ellipse(x, y, 0, 0.38, 0.16, 0.05) * step(-0.01, 0.02, y - 0.36 + rng.uniform(-0.3, 0.6) * x * x)
    return mix(out, hue(rng, 0.98, 0.03, (0.4, 0.8), (0.4, 0.8)), smile)


def cat(size: int, rng: Rng) -> Field:
    out = backdrop(size, rng)
    x, y, side = _place(size, rng)
    fur, dark = hue(rng, 0.08, 0.05, (0.05, 0.7), (0.3, 1.0)), colour(rng, (0.0, 0.4), (0.05, 0.4))
    stripes = step(0.3, 0.7, 0.5 + 0.5 * np.sin(rng.uniform(8, 16) * (y + 0.6 * abs(x)) + 3 * noise(size, rng, 1.3)))
    coat = mix(fur, dark, stripes * rng.uniform(0, 0.8))
    hairs = (0.75 + 0.5 * noise(size, rng, 0.6))[..., None]
    body = ellipse(x, y, 0.1 * side, 1.1, 0.7, 0.7, soft=0.06)
    out = mix(out, np.clip(shaded(body, coat, rng, side) * hairs, 0, 1), body)
    for ear in (-0.36, 0.36):
        v = (y + 0.85) / 0.45
        cover = (v > 0) & (v < 1.2) & (abs(x - ear * (0.7 + 0.3 * (1 - v))) < 0.22 * v)
        out = mix(out, np.clip(coat * hairs, 0, 1), blur(cover.astype(float), 1))
        cover = (v > 0.25) & (v < 1) & (abs(x - ear * (0.7 + 0.3 * (1 - v))) < 0.12 * (v - 0.25))
        out = mix(out, np.array([0.85, 0.6, 0.6]), blur(cover.astype(float), 1))
    head = ellipse(x, y, 0, 0, 0.58, 0.5, soft=0.05)
    out = mix(out, np.clip(shaded(head, coat, rng, side) * hairs, 0, 1), head)
    out = _eyes(out, x, y, rng, 0.24, -0.06, 0.13, hue(rng, 0.25, 0.15, (0.5, 0.9), (0.5, 0.9)))
    muzzle = np.maximum(
        ellipse(x, y, -0.1, 0.24, 0.14, 0.12, soft=0.05), ellipse(x, y, 0.1, 0.24, 0.14, 0.12, soft=0.05)
    )
    out = mix(out, np.clip(fur * 0.5 + 0.45, 0, 1), 0.8 * muzzle)
    out = mix(out, np.array([0.75, 0.4, 0.4]), ellipse(x, y, 0, 0.14, 0.055, 0.04))
    for k in range(-2, 3):
        line = step(0.012, 0.004, abs(y - 0.25 - 0.12 * k * abs(x))) * (abs(x) > 0.15) * (abs(x) < 0.75)
        out = mix(out, np.full(3, 0.95), 0.6 * line)
    return out


def bird(size: int, rng: Rng) -> Field:
    out = backdrop(size, rng)
    x, y, side = _place(size, rng)
    x = x * side
    feather, wing = colour(rng, (0.3, 1.0), (0.3, 1.0)), colour(rng, (0.2, 1.0), (0.1, 0.8))
    branch = step(0.05, 0.03, abs(y - 0.55 - 0.1 * x))
    out = mix(out, np.array([0.35, 0.25, 0.15]) * (0.6 + 0.7 * noise(size, rng, 0.9, 3)[..., None]), branch)
    tail = ellipse(x, y, -0.65, 0.35, 0.4, 0.09, 0.5 - rng.uniform(0.7, 1.2))
    out = mix(out, wing * 0.8, tail)
    for cover, paint in (
        (ellipse(x, y, -0.1, 0.15, 0.45, 0.33, -0.5), feather),
        (ellipse(x, y, 0.25, -0.25, 0.24, 0.22), feather * 0.9),
        (ellipse(x, y, -0.2, 0.15, 0.35, 0.18, -0.4), wing),
    ):
        out = mix(out, shaded(cover, paint * (0.75 + 0.4 * noise(size, rng, 0.7)[..., None]), rng, side), cover)
    beak = (x > 0.44) & (x < 0.66) & (abs(y + 0.24) < 0.07 * (0.66 - x) / 0.22)
    out = mix(out, np.array([0.9, 0.65, 0.1]), beak.astype(float))
    out = mix(out, np.full(3, 0.03), ellipse(x, y, 0.32, -0.3, 0.045, 0.045))
    return mix(out, np.ones(3), ellipse(x, y, 0.335, -0.315, 0.014, 0.014))


def flowers(size: int, rng: Rng) -> Field:
    out = mix(backdrop(size, rng), hue(rng, 0.3, 0.1, (0.3, 0.7), (0.1, 0.6)), np.full((size, size), 0.5))
    x, y = grid(size)
    for _ in range(rng.integers(1, 9)):
        cx, cy, r = rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.6), rng.uniform(0.12, 0.5)
        petals, turn = rng.integers(4, 10), rng.uniform(0, 7)
        stem = step(0.03, 0.015, abs(x - cx - 0.1 * np.sin(3 * (y - cy)))) * (y > cy)
        out = mix(out, hue(rng, 0.3, 0.05, (0.4, 0.8), (0.2, 0.6)), stem)
        distance, angle = np.hypot(x - cx, y - cy) / r, np.arctan2(y - cy, x - cx) + turn
        lobe = abs(np.cos(angle * petals / 2)) ** 0.6
        paint = ramp(
            np.clip(distance, 0, 1), [colour(rng, (0.4, 1.0), (0.4, 1.0)), colour(rng, (0.2, 1.0), (0.6, 1.0))]
        )
        shade = (0.55 + 0.5 * lobe * (0.6 + 0.4 * distance)) * (0.9 + 0.2 * noise(size, rng, 0.8))
        out = mix(out, np.clip(paint * shade[..., None], 0, 1), step(0.04, -0.04, distance - 0.35 - 0.65 * lobe))
        heart = hue(rng, 0.12, 0.04, (0.5, 1.0), (0.3, 0.9)) * (0.6 + 0.7 * noise(size, rng, 0.2))[..., None]
        out = mix(out, np.clip(heart, 0, 1), step(0.3, 0.24, distance))
    return out


def texture(size: int, rng: Rng) -> Field:
    """Noise with a natural spectrum, warped, in a few colours."""
    field = noise(size, rng, rng.uniform(0.6, 1.8), rng.choice([0.3, 1.0, 1.0, 3.0]))
    if rng.random() < 0.5:
        field = 0.5 + 0.5 * np.sin(rng.uniform(4, 25) * field + rng.uniform(2, 20) * grid(size)[rng.integers(2)])
    out = ramp(field, [colour(rng, (0.0, 0.9), (0.05, 1.0)) for _ in range(rng.integers(2, 5))])
    light = noise(size, rng, 1.4)
    return np.clip(out * (0.7 + 0.5 * light[..., None]), 0, 1)


SCENES = {"a face": face, "a cat": cat, "a bird": bird, "flowers": flowers, "a texture": texture}
