"""Picture files: their bytes' digest, and their pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ....diffstyler_core.metrics.available import NotAvailable

TOGETHER = 2**20
"""Bytes that are read at a time."""


def digest(path: Path) -> str:
    """Of a file's bytes. Raises NotAvailable when it cannot be read."""
    try:
        made = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            while part := file.read(TOGETHER):
                made.update(part)
        return made.hexdigest()
    except OSError as error:
        raise NotAvailable(f"it cannot be read ({error.strerror or error})") from error


def read_picture(path: Path, size: int) -> Tensor:
    """[H, W, 3] in 0..1, its shorter side scaled to ``size`` (0: as it is). Raises NotAvailable for no picture.

    PIL's bilinear with antialiasing, as the field's evaluation does with torchvision's Resize.
    """
    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):  # PIL would clip them
                raise ValueError("its values are no 8-bit ones: save it with 8 bits")
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:
        raise NotAvailable(f"it cannot be read as a picture ({str(error) or type(error).__name__})") from error
    shorter = min(picture.size)
    if size and shorter != size:
        sides = [size if side == shorter else int(size * side / shorter) for side in picture.size]
        picture = picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
