"""The training set: photographs, scenes and artworks with captions, written in shards so that it can be resumed."""

import json
import logging
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import artworks, photographs, scenes
from .fields import Rng

log = logging.getLogger(__name__)
SIZE = 256
SHARD = 40
TOKEN = "<sss>"  # stands in captions where the paper's prompts have their style token
FIRST_SEED = 10_000  # seeds below are held out: demo pictures, tests and reports use them


def caption(technique: str | None, subject: str, rng: Rng) -> str:
    if technique is None:
        return f"photo of {subject}"
    kind = artworks.TECHNIQUES[technique][0]
    if rng.random() < 0.3:
        return f"{kind} of {TOKEN}, {subject}"
    return f"{kind} of {subject}" if rng.random() < 0.5 else f"{technique} {kind} of {subject}"


def _content(rng: Rng, photos: list[tuple[NDArray[np.uint8], str]]) -> tuple[NDArray[np.uint8], str]:
    if photos and rng.random() < 0.3:
        image, subject = photos[rng.integers(len(photos))]
        return photographs.crop(image, SIZE, rng), subject
    subject = scenes.random_subject(rng)
    image = scenes.scene(subject, SIZE, FIRST_SEED + int(rng.integers(2**40)))
    return np.round(image * 255).astype(np.uint8), subject


def picture(index: int, photos: list[tuple[NDArray[np.uint8], str]]) -> tuple[NDArray[np.uint8], str]:
    """Picture number `index` [SIZE, SIZE, 3] and its caption."""
    rng = np.random.default_rng([7, index])
    image, subject = _content(rng, photos)
    image = photographs.jitter(image, rng, permute=0.1)
    technique = str(rng.choice(list(artworks.TECHNIQUES))) if rng.random() < 0.45 else None
    if technique is not None:
        image = np.round(artworks.artwork(image / 255.0, technique, FIRST_SEED + index) * 255).astype(np.uint8)
    return image, caption(technique, subject, rng)


def _shard(job: tuple[int, Path]) -> None:
    number, work = job
    photos = [(photographs.load(p, work / "wheels"), p.subject) for p in photographs.TRAINING]
    made = [picture(number * SHARD + k, photos) for k in range(SHARD)]
    target = work / "shards" / f"{number:04d}.npz"
    partial = target.with_suffix(".partial.npz")
    np.savez(partial, images=np.stack([m[0] for m in made]), captions=np.array([m[1] for m in made]))
    partial.replace(target)


def make(work: Path, count: int, processes: int) -> None:
    """Write what is missing of `count` pictures."""
    (work / "shards").mkdir(parents=True, exist_ok=True)
    jobs = [(n, work) for n in range(-(-count // SHARD)) if not (work / "shards" / f"{n:04d}.npz").exists()]
    with get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_shard, jobs), 1):
            log.info("pictures: %d of %d shards", done, len(jobs))
    gather(work)


def gather(work: Path) -> int:
    """One array of pictures and one list of captions from the shards there are."""
    shards = [np.load(p) for p in sorted((work / "shards").glob("????.npz"))]
    if not shards:
        raise ValueError(f"no pictures under {work}; run the 'data' stage first")
    np.save(work / "pictures.partial.npy", np.concatenate([s["images"] for s in shards]))
    (work / "pictures.partial.npy").replace(work / "pictures.npy")
    captions = [str(c) for s in shards for c in s["captions"]]
    (work / "captions.json").write_text(json.dumps(captions))
    return len(captions)
