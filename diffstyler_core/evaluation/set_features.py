"""Inception features of an evaluation's pictures, kept in files beside its table so that none is computed twice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)
FEATURES = 2048
"""Numbers that an Inception gives for a picture."""


class FeatureNetwork(Protocol):
    """An Inception. name: which one."""

    name: str

    def features(self, picture: Tensor) -> Tensor:
        """[2048] of a picture [H, W, 3] in 0..1."""
        ...


class KeptFeatures:
    """Features by picture. weights: digest of the network's file; size: what pictures are scaled to."""

    def __init__(self, folder: Path, network: FeatureNetwork, weights: str, size: int) -> None:
        self._folder, self._network, self._of = folder, network, f"{weights} {size}"

    @property
    def name(self) -> str:
        """Which network."""
        return self._network.name

    def features(self, digest: str, read: Callable[[], Tensor]) -> Tensor:
        """[2048] of a file's picture. It is read, [H, W, 3], only where its features were not computed before."""
        file = self._file(digest)
        found = _kept(file)
        if found is not None:
            return found
        found = self._network.features(read())
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
