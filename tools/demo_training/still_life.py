"""Ray-cast still lifes: spheres, boxes and cylinders on a table, with procedural materials and two lights."""

from dataclasses import dataclass

import numpy as np

from .fields import Field, Rng, colour, grid, mix, noise, ramp, step

FAR = 1e9


@dataclass
class Solid:
    kind: str  # sphere, box or cylinder; upright on the table y = 0
    centre: Field  # [3]
    size: Field  # [3] half extents
    turn: float  # about the vertical axis, radians
    paint: list[Field]
    pattern: str
    shine: float

    def local(self, v: Field) -> Field:
        c, s = np.cos(self.turn), np.sin(self.turn)
        x, y, z = v[..., 0], v[..., 1], v[..., 2]
        return np.stack([c * x + s * z, y, -s * x + c * z], -1) / self.size

    def world(self, n: Field) -> Field:
        c, s = np.cos(self.turn), np.sin(self.turn)
        n = n / self.size
        out = np.stack([c * n[..., 0] - s * n[..., 2], n[..., 1], s * n[..., 0] + c * n[..., 2]], -1)
        return out / np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-9)

    def hit(self, start: Field, ray: Field) -> tuple[Field, Field]:
        """Distance along each ray [..., 3] (FAR: missed) and the normal in local space."""
        o, d = self.local(start - self.centre), self.local(ray)
        if self.kind == "box":
            return _box(o, d)
        if self.kind == "cylinder":
            return _cylinder(o, d)
        return _round(o, d, np.ones(3))


def _round(o: Field, d: Field, axes: Field) -> tuple[Field, Field]:
    a, b, c = (axes * d * d).sum(-1), (axes * o * d).sum(-1), (axes * o * o).sum(-1) - 1
    inside = b * b - a * c
    t = (-b - np.sqrt(np.maximum(inside, 0))) / np.maximum(a, 1e-9)
    t = np.where((inside > 0) & (t > 1e-3), t, FAR)
    return t, (o + np.minimum(t, 1e4)[..., None] * d) * axes


def _box(o: Field, d: Field) -> tuple[Field, Field]:
    safe = np.where(abs(d) < 1e-9, 1e-9, d)
    near, far = np.minimum((-1 - o) / safe, (1 - o) / safe), np.maximum((-1 - o) / safe, (1 - o) / safe)
    t = near.max(-1)
    face = (near == t[..., None]) * -np.sign(d)
    return np.where((t < far.min(-1)) & (t > 1e-3), t, FAR), face


def _cylinder(o: Field, d: Field) -> tuple[Field, Field]:
    t, normal = _round(o, d, np.array([1.0, 0.0, 1.0]))
    y = o[..., 1] + np.minimum(t, 1e4) * d[..., 1]
    t = np.where(abs(y) <= 1, t, FAR)
    cap = (1 - o[..., 1]) / np.where(abs(d[..., 1]) < 1e-9, 1e-9, d[..., 1])
    at = o + np.minimum(abs(cap), 1e4)[..., None] * d
    lid = (cap > 1e-3) & (cap < t) & (np.hypot(at[..., 0], at[..., 2]) < 1)
    return np.where(lid, cap, t), np.where(lid[..., None], np.array([0.0, 1.0, 0.0]), normal)


def _pattern(kind: str, p: Field, texture: Field) -> Field:
    """0..1 from a point in local space [..., 3]."""
    if kind == "stripes":
        return step(-0.1, 0.1, np.sin(8 * (p[..., 1] + 0.4 * p[..., 0])))
    if kind == "checks":
        return (np.floor(2.5 * p + 0.013).sum(-1) % 2).astype(float)
    if kind == "marble":
        return 0.5 + 0.5 * np.sin(5 * p[..., 0] + 9 * texture)
    if kind == "wood":
        return (4 * np.hypot(p[..., 0], 0.4 * p[..., 2]) + 1.5 * texture) % 1
    return 0.3 * texture


PATTERNS = ("plain", "plain", "stripes", "checks", "marble", "wood")


def _solids(kind: str, rng: Rng) -> list[Solid]:
    solids = []
    for _ in range(rng.integers(1, 7)):
        one = kind if kind != "things" else rng.choice(["sphere", "box", "cylinder"])
        r = rng.uniform(0.25, 0.7)
        size = np.full(3, r) if one == "sphere" else r * rng.uniform([0.5, 0.6, 0.5], [1.0, 1.6, 1.0])
        size[2] = size[0] if one == "cylinder" else size[2]
        centre = np.array([rng.uniform(-1.5, 1.5), size[1], rng.uniform(-1.0, 1.6)])
        paint = [colour(rng, (0.1, 0.95), (0.25, 1.0)), colour(rng, (0.0, 0.8), (0.1, 1.0))]
        solids.append(Solid(one, centre, size, rng.uniform(0, np.pi), paint, rng.choice(PATTERNS), rng.uniform(0, 0.9)))
    return solids


def _nearest(solids: list[Solid], start: Field, ray: Field) -> tuple[Field, Field, Field]:
    best, which, normal = np.full(ray.shape[:-1], FAR), np.full(ray.shape[:-1], -1), np.zeros_like(ray)
    for k, solid in enumerate(solids):
        t, n = solid.hit(start, ray)
        closer = t < best
        best, which = np.where(closer, t, best), np.where(closer, k, which)
        normal = np.where(closer[..., None], solid.world(n), normal)
    return best, which, normal


def _shadow(solids: list[Solid], at: Field, light: Field) -> Field:
    blocked = np.zeros(at.shape[:-1], bool)
    for solid in solids:
        blocked |= solid.hit(at, np.broadcast_to(light, at.shape))[0] < FAR
    return 1.0 - blocked


def render(size: int, rng: Rng, kind: str) -> Field:
    x, y = grid(size)
    solids = _solids(kind, rng)
    eye = np.array([rng.uniform(-0.6, 0.6), rng.uniform(0.8, 2.4), rng.uniform(-4.5, -3.0)])
    forward = np.array([0, rng.uniform(0.2, 0.5), 0.3]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross([0, 1, 0], forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    ray = forward + rng.uniform(0.4, 0.6) * (x[..., None] * right - y[..., None] * up)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)

    wall = ramp(np.clip(0.5 - 0.5 * y + 0.3 * (noise(size, rng, 1.5) - 0.5), 0, 1), [colour(rng), colour(rng)])
    best, which, normal = _nearest(solids, eye, ray)
    floor = np.where(ray[..., 1] < -1e-3, -eye[1] / np.minimum(ray[..., 1], -1e-3), FAR)
    on_floor = (floor < best) & (floor < 12)
    t = np.where(on_floor, floor, best)
    at = eye + np.minimum(t, 50.0)[..., None] * ray
    normal = np.where(on_floor[..., None], np.array([0.0, 1.0, 0.0]), normal)
    texture = noise(size, rng, rng.uniform(0.8, 1.6), rng.uniform(0.5, 4))

    table = [colour(rng, (0.1, 0.6)), colour(rng, (0.1, 0.6))]
    base = ramp(_pattern(rng.choice(PATTERNS), at * rng.uniform(0.4, 1.2), texture), table)
    shine = np.full(x.shape, 0.1)
    for k, solid in enumerate(solids):
        mine = (which == k) & ~on_floor
        skin = ramp(_pattern(solid.pattern, solid.local(at - solid.centre), texture), solid.paint)
        base, shine = np.where(mine[..., None], skin, base), np.where(mine, solid.shine, shine)
    out = base * rng.uniform(0.12, 0.35) * (0.8 + 0.2 * normal[..., 1:2])
    for strength in (rng.uniform(0.6, 0.95), rng.uniform(0.0, 0.35)):
        light = np.array([rng.uniform(-1, 1), rng.uniform(0.5, 1.5), rng.uniform(-1.2, 0.3)])
        light /= np.linalg.norm(light)
        seen = _shadow(solids, at + 2e-3 * normal, light)
        lit = np.clip((normal * light).sum(-1), 0, 1) * seen
        half = light - ray
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        spot = np.clip((normal * half).sum(-1), 0, 1) ** rng.uniform(15, 90) * shine * seen
        out = out + strength * (base * lit[..., None] + spot[..., None])
    out = mix(wall, out, step(13.0, 9.0, t))
    return np.clip(out, 0, 1)


KINDS = {"spheres": "sphere", "boxes": "box", "cylinders": "cylinder", "things on a table": "things"}
