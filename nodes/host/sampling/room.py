"""The device memory that the contents' features take during a run, as the host counts it before it loads a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.controlnet import ControlBase
from comfy.model_patcher import ModelPatcher

from ....diffstyler_core.injection.between import Used
from ..checks.conditioning import Conditioning
from ..model import computing_dtype
from .branches import Branch, Content, contents_of, used_of
from .capture import numbers_at


class FeaturesRoom(ControlBase):
    """A control that controls nothing. The host asks controls how much memory they take beside their models, and
    unloads so many of the weights as do not fit beside that. nbytes: what it answers."""

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        self.nbytes = nbytes

    def inference_memory_requirements(self, dtype: torch.dtype) -> int:
        """In bytes."""
        return self.nbytes

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> FeaturesRoom:
        """One for another device of the same run."""
        clone = FeaturesRoom(self.nbytes)
        if autoregister:
            self.multigpu_clones[load_device] = clone
        return clone

    def conditioning(self) -> Conditioning:
        """A conditioning without a prompt that carries it to the host."""
        return [[None, {"control": self}]]


def features_room(model: ModelPatcher, branches: Sequence[Branch], interpolated: bool) -> FeaturesRoom:
    """For what a noise level holds on the device at most. interpolated: of two steps, and what lies between them."""
    contents, base = contents_of(branches), model.model
    numbers = {content: _numbers(model, content, branches) for content in contents}
    schedule = contents[0].capture.trajectory.schedule if contents else None
    levels = enumerate(schedule.timesteps) if schedule is not None else ()
    most = 0
    for step, t in levels:
        used = {content: used_of(content, branches, step, t) for content in contents}
        held = (_held(content, own, numbers[content], base, interpolated) for content, own in used.items())
        most = max(most, sum(held))
    return FeaturesRoom(most)


def _held(content: Content, used: Used, numbers: dict[Any, tuple[int, ...]], base: Any, interpolated: bool) -> int:
    """Bytes of what is used of a content at one level."""
    store, dtype = content.capture.store, computing_dtype(base)
    count = sum(numbers[site][i] for site, which in used.items() for i in which)
    if store is None:
        return count * dtype.itemsize
    cast = dtype.itemsize if store.dtype != dtype else 0
    return count * ((3 if interpolated else 1) * store.dtype.itemsize + cast)


def _numbers(model: ModelPatcher, content: Content, branches: Sequence[Branch]) -> dict[Any, tuple[int, ...]]:
    request, source = content.capture.request, content.capture.source
    sites = (*request.feature_sites, *request.attention_sites)
    return numbers_at(model, sites, content.capture.trajectory.content, source.conditioning)  # type: ignore[arg-type]
