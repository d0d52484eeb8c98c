"""The content's features and attention along its trajectory, and where they are kept (method.md section 3)."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .plan import InjectionPlan
from .sites import Site, format_layers
from .taps import SiteTensors
from .trajectory import Trajectory

Storage = Literal["memory", "disk", "recompute"]
STORAGES: tuple[Storage, ...] = ("memory", "disk", "recompute")


@dataclass(frozen=True)
class CaptureRequest:
    """Which sites are taken, for how many of the first steps. Only what a window can use is worth taking."""

    feature_sites: tuple[Site, ...]
    attention_sites: tuple[Site, ...]
    feature_steps: int
    attention_steps: int

    def check(self, steps: int) -> None:
        """Raises ValueError when a number of steps lies outside 0..steps or nothing at all is asked for."""
        for name in ("feature_steps", "attention_steps"):
            if not 0 <= getattr(self, name) <= steps:
                raise ValueError(
                    f"{name} must lie in 0..{steps} (the trajectory's steps), got {getattr(self, name)}. "
                    f"Lower {name}, or invert with more steps."
                )
        if not any(self.sites_at(step) for step in range(steps)):
            raise ValueError("nothing to capture: no layers, or 0 steps. Name layers and keep at least one step.")

    def sites_at(self, step: int) -> tuple[Site, ...]:
        """The sites taken at this step, in storage order."""
        features = self.feature_sites if step < self.feature_steps else ()
        return features + (self.attention_sites if step < self.attention_steps else ())

    def steps(self) -> int:
        """How many first steps have anything to take."""
        feature_steps = self.feature_steps if self.feature_sites else 0
        return max(feature_steps, self.attention_steps if self.attention_sites else 0)


class MemoryStore(tuple[SiteTensors, ...]):
    """Per step, the tensors of its sites one after the other. A tuple, so that the host's cache counts it."""

    __slots__ = ()

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step."""
        return self[step]

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(t.numel() * t.element_size() for step in self for t in step)


class DiskStore:
    """Per step, one safetensors file in a folder of its own, which goes when the store goes.

    Tensors are read back one step at a time.
    """

    def __init__(self, folder: Path, steps: Iterable[SiteTensors]) -> None:
        folder.mkdir(parents=True, exist_ok=False)
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder
        self.nbytes = 0
        try:
            for i, tensors in enumerate(steps):
                self._write(i, tensors)
                self.nbytes += sum(t.numel() * t.element_size() for t in tensors)
        except BaseException:
            self._finalizer()
            raise

    def _file(self, step: int) -> Path:
        return self.folder / f"step_{step:04d}.safetensors"

    def _write(self, step: int, tensors: SiteTensors) -> None:
        named = {f"{j:03d}": t.contiguous() for j, t in enumerate(tensors)}
        try:
            safetensors.torch.save_file(named, self._file(step))
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"storage: step {step} of the capture could not be written to {self.folder} ({error}). "
                "Free some space, capture fewer layers or steps, or choose memory or recompute."
            ) from error

    def require(self, step: int) -> None:
        """Raises ValueError when the file of a step is gone."""
        if not self._file(step).is_file():
            raise ValueError(
                f"features: the captured step {step} is no longer on disk (temporary files were cleaned). "
                "Capture again: change any input of the Capture node, or restart ComfyUI."
            )

    def tensors(self, step: int) -> SiteTensors:
        """The flat tensors of one step, read from its file. Raises ValueError when the file is gone."""
        self.require(step)
        named = safetensors.torch.load_file(self._file(step))
        return tuple(named[name] for name in sorted(named))


class _Fields(NamedTuple):
    trajectory: Trajectory
    request: CaptureRequest
    conditioning: object
    store: MemoryStore | DiskStore | None


class Capture(_Fields):
    """A capture request, its result, and the trajectory it belongs to. Store None: recomputed while sampling.

    conditioning: what the content was predicted with, as the node that samples needs it to recompute.
    """

    __slots__ = ()

    def at(self, step: int) -> Mapping[Site, SiteTensors]:
        """What was taken at this step. Raises ValueError when the store is 'recompute'."""
        if self.store is None:
            raise ValueError("this capture stores nothing; it is recomputed while sampling.")
        flat, out = list(self.store.tensors(step)), {}
        for site in self.request.sites_at(step):
            size = 1 if site.kind == "feature" else 2
            out[site] = tuple(flat[:size])
            del flat[:size]
        return out

    def check_covers(self, plan: InjectionPlan) -> None:
        """Raises ValueError that names what the plan needs and this capture lacks, before any work starts."""
        for step, t in enumerate(self.trajectory.schedule.timesteps):
            lacking = plan.sites_at(step, t) - set(self.request.sites_at(step))
            if lacking:
                raise ValueError(self._lack(min(lacking), step, plan))
            if isinstance(self.store, DiskStore) and plan.sites_at(step, t):
                self.store.require(step)

    def _lack(self, site: Site, step: int, plan: InjectionPlan) -> str:
        feature = site.kind == "feature"
        taken = self.request.feature_sites if feature else self.request.attention_sites
        if site not in taken:
            layers = format_layers(tuple(s.layer for s in taken if s.kind == site.kind)) or "none"
            return f"the plan injects the {site}, which was not captured (captured {site.kind} layers: {layers})."
        name = "feature_steps" if feature else "attention_steps"
        kept = getattr(self.request, name)
        why = "" if feature or plan.mode == "fixed" else " (adaptive attention blends up to the last step)"
        return (
            f"step {step} injects the {site}{why}, but only the first {kept} steps were captured. "
            f"Capture more steps, or lower the sampler's window{'' if feature else ' or use fixed attention'}."
        )


def flatten(taken: Mapping[Site, SiteTensors], sites: tuple[Site, ...]) -> SiteTensors:
    """One step's tensors in storage order."""
    return tuple(t for site in sites for t in taken[site])


def keeper(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """How captured tensors are kept: a CPU copy in ``dtype``."""

    def keep(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device="cpu", dtype=dtype, copy=True)

    return keep
