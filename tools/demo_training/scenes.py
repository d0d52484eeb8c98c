"""All generated scenes under one name: `photo of <subject>`."""

from collections.abc import Callable
from functools import partial

import numpy as np

from . import creatures, landscapes, still_life
from .fields import Field, Rng

Renderer = Callable[[int, Rng], Field]
SUBJECTS: dict[str, Renderer] = {
    **landscapes.SCENES,
    **{name: partial(still_life.render, kind=kind) for name, kind in still_life.KINDS.items()},
    **creatures.SCENES,
}
WEIGHTS = {"a face": 3.0, "a cat": 2.0, "mountains": 1.5, "the sea": 1.5, "trees in a meadow": 1.5, "flowers": 1.5,
           "spheres": 0.5, "boxes": 0.5, "cylinders": 0.5}  # fmt: skip


def scene(subject: str, size: int, seed: int) -> Field:  # [size, size, 3] in 0..1
    """The picture of `subject` for this seed."""
    if subject not in SUBJECTS:
        raise ValueError(f"no scene {subject!r}; choose one of {', '.join(SUBJECTS)}")
    return np.clip(SUBJECTS[subject](size, np.random.default_rng(seed)), 0, 1)


def random_subject(rng: Rng) -> str:
    names = list(SUBJECTS)
    weights = np.array([WEIGHTS.get(name, 1.0) for name in names])
    return names[rng.choice(len(names), p=weights / weights.sum())]
