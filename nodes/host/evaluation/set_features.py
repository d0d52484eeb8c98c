"""Inception features of an evaluation's pictures, kept in files beside its table so that none is computed twice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..networks.inception import FEATURES, Inception

log = logging.getLogger(__name__)


class KeptFeatures:
    """Features by picture. weights: digest of the network's file; size: what pictures are scaled to."""

    def __init__(self, folder: Path, inception: Inception, weights: str, size: int) -> None:
        self._folder, self._inception, self._of = folder, inception, f"{weights} {size}"

    @property
    def name(self) -> str:
        """Which network."""
        return self._inception.name

    def features(self, digest: str, read: Callable[[], Tensor]) -> Tensor:
        """[2048] of a file's picture. It is read, [H, W, 3], only where its features were not computed before."""
        file = self._file(digest)
        found = _kept(file)
        if found is not None:
            return found
        found = self._inception.features(read())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": found.contiguous()}, file)
        except (OSError, safetensors.SafetensorError) as error:
            log.warning("features cannot be kept in %s (%s): they are computed again next time.", self._folder, error)
        return found

    def _file(self, digest: str) -> Path:
        name = hashlib.blake2b(f"{digest} {self._of}".encode(), digest_size=16).hexdigest()
        return self._folder / f"{name}.safetensors"


def _kept(file: Path) -> Tensor | None:
    """What a file holds; None for none, and for one that was cut off or is damaged: it is computed again."""
    if not file.is_file():
        return None
    try:
        found = load_file(file).get("features", torch.zeros(0))
    except (OSError, safetensors.SafetensorError) as error:
        log.warning("features in %s cannot be read (%s): they are computed again.", file, error)
        return None
    return found if found.shape == (FEATURES,) and bool(found.isfinite().all()) else None
