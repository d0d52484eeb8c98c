"""Crops for the autoencoder, from photographs and from the generated pictures."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import photographs
from .autoencoder import Batches


def crop_source(wheels: Path, pictures: Path | None, share: float = 0.45) -> Batches:
    """Batches in which `share` of the crops come from photographs, the rest from the file of pictures."""
    photos = [photographs.load(p, wheels) for p in photographs.TRAINING]
    made = np.load(pictures, mmap_mode="r") if pictures and pictures.exists() else None

    def one(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        if made is None or rng.random() < share:
            photo = photos[rng.integers(len(photos))]
            image = photographs.crop(photo, size, rng, rng.choice([0.4, 0.7, 1.0]))
        else:
            whole = made[rng.integers(len(made))]
            top, left = rng.integers(0, whole.shape[0] - size + 1, 2)
            image = np.asarray(whole[top : top + size, left : left + size])
        return photographs.jitter(image, rng)

    return lambda count, size, rng: np.stack([one(size, rng) for _ in range(count)])
