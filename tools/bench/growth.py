"""How cost grows with steps, styles, size and frames: counts, seconds, and how straight the lines are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from tools.bench.measure import counted, spent
from tools.bench.models import Subject
from tools.bench.node_calls import NodeCalls

Work = Callable[[], Any]


class Series(NamedTuple):
    """One line: what is on the x axis, and for each place the work and the subject whose UNet does it."""

    name: str
    across: str
    points: Sequence[tuple[float, Work, Subject]]


def series(calls: NodeCalls, subject_of: Callable[[int], Subject], quick: bool) -> Iterator[Series]:
    """Sampling with a LoRA and the content injected from memory. subject_of: at this many pixels."""
    subject, side = calls.subject, calls.subject.side
    lora = calls.random_lora(1)

    def sampling(own: NodeCalls, frames: int = 1, styles: int = 0) -> Work:
        features = own.capture(own.invert(own.subject.latent(frames)))
        if not styles:
            return partial(own.sample, features, lora)
        some = [calls.random_lora(seed) for seed in range(1, styles + 1)]
        return partial(own.sample, features, styles=own.styles(some))

    few = (2, 4) if quick else (5, 10, 20, 40)
    yield Series("steps", "steps", [(n, sampling(replace(calls, steps=n)), subject) for n in few])
    many = (1, 2) if quick else (1, 2, 3, 4, 6)
    yield Series("styles", "styles in masks", [(n, sampling(calls, styles=n), subject) for n in many])
    batch = (1, 2) if quick else (1, 2, 4, 8)
    yield Series("frames", "frames", [(n, sampling(calls, frames=n), subject) for n in batch])
    sides = (side, 2 * side) if quick else (64, 128, 192, 256, 320)
    resized = [(n, subject_of(n)) for n in sides]
    points = [((n / 8) ** 2, sampling(replace(calls, subject=own)), own) for n, own in resized]
    yield Series("size", "cells of the latent", points)


def measured(one: Series, repeats: int) -> dict[str, Any]:
    """The series' entry in results.json. Seconds: the least CPU and wall time of the repeats, run by turns."""
    counts = [counted(work, subject.model) for _, work, subject in one.points]
    rounds = [[spent(work) for _, work, _ in one.points] for _ in range(repeats)]
    points = [
        {
            "x": x,
            "wall_s": round(min(times[i].wall for times in rounds), 4),
            "cpu_s": round(min(times[i].cpu for times in rounds), 4),
            "gflop": round(counts[i].flops / 1e9, 3),
            "operator_calls": counts[i].a_step(1)["operator_calls"],
            "unet_rows": counts[i].rows,
        }
        for i, (x, _, _) in enumerate(one.points)
    ]
    fits = {key: straightness([(p["x"], p[key]) for p in points]) for key in ("cpu_s", "gflop", "operator_calls")}
    return {"name": one.name, "across": one.across, "points": points, "fits": fits}


def straightness(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The least-squares line through the points, and the farthest that one lies from it, relative to the highest."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    start = mean_y - slope * mean_x
    highest = max(abs(y) for _, y in points) or 1.0
    off = max(abs(start + slope * x - y) for x, y in points) / highest
    return {"slope": float(f"{slope:.4g}"), "at_zero": float(f"{start:.4g}"), "off_line": round(off, 4)}


def entries(
    calls: NodeCalls, subject_of: Callable[[int], Subject], repeats: int, quick: bool
) -> Iterator[dict[str, Any]]:
    """Every series, as it comes."""
    for one in series(calls, subject_of, quick):
        yield {"model": calls.subject.name, **measured(one, repeats)}
