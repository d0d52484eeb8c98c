"""The content's features and attention along its trajectory, and where they are kept (method.md section 3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..diffusion.trajectory import Trajectory
from ..lora.schedule import Lora, LoraSchedule
from .blocks import Room
from .disk import DiskStore as DiskStore
from .plan import InjectionPlan
from .settings import InjectionSettings
from .sites import Site, format_layers
from .store import STORAGES as STORAGES
from .store import MemoryStore as MemoryStore
from .store import Storage as Storage
from .store import Store, frames_of
from .taps import SiteTensors, held_at


@dataclass(frozen=True)
class CaptureRequest:
    """Which sites are taken, for how many of the first steps. Only what a window can use is worth taking.

    values: whether self-attention's v is taken too, for a style's own picture.
    """

    feature_sites: tuple[Site, ...]
    attention_sites: tuple[Site, ...]
    feature_steps: int
    attention_steps: int
    values: bool = False

    def check(self, steps: int) -> None:
        """Raises ValueError when a number of steps lies outside 0..steps or nothing at all is asked for."""
        for name in ("feature_steps", "attention_steps"):
            if not 0 <= getattr(self, name) <= steps:
                raise ValueError(f"{name} must lie in 0..{steps} (the trajectory's steps), got {getattr(self, name)}.")
        if not self.steps():
            raise ValueError(
                f"nothing to capture: no layers, or none of the {steps} steps. Name layers, and raise "
                "feature_end_percent or attention_end_percent."
            )
        if self.values and not (self.attention_steps and any(s.kind == "self-attention" for s in self.attention_sites)):
            raise ValueError(
                "values: no self-attention is captured whose v could be kept. Name self_attention_layers and raise "
                "attention_end_percent, or switch values off."
            )

    def sites_at(self, step: int) -> tuple[Site, ...]:
        """The sites taken at this step, in storage order."""
        features = self.feature_sites if step < self.feature_steps else ()
        return features + (self.attention_sites if step < self.attention_steps else ())

    def steps(self) -> int:
        """How many first steps have anything to take."""
        feature_steps = self.feature_steps if self.feature_sites else 0
        return max(feature_steps, self.attention_steps if self.attention_sites else 0)


class ContentRun(NamedTuple):
    """What the content's own run is predicted with; opaque here but for the LoRA.

    conditioning: its prompt. lora, strength: acting in the UNet that the content is shown to, None for none.
    model: that UNet, kept only where the run is to be repeated ('recompute').
    """

    conditioning: object
    lora: Lora | LoraSchedule | None = None
    strength: float = 1.0
    model: object = None


class _Fields(NamedTuple):
    trajectory: Trajectory
    request: CaptureRequest
    source: ContentRun
    store: Store | None


class Capture(_Fields):
    """A capture request, its result, and the trajectory it belongs to. Store None: recomputed while sampling.

    source: what the content was predicted with, as the node that samples needs it to recompute.
    """

    __slots__ = ()

    def at(self, step: int, sites: Collection[Site] | None = None, room: Room | None = None) -> dict[Site, SiteTensors]:
        """What was taken at this step, of these sites or all. Raises ValueError when the store is 'recompute'.

        room: where the tensors have their memory; None: wherever they are.
        """
        places = self._places(step, sites)
        flat = self._stored().tensors(step, [i for place in places.values() for i in place], room)
        return split(flat, tuple(places), self.request.values)

    def sizes_at(self, step: int, sites: Collection[Site] | None = None) -> tuple[int, ...]:
        """Bytes of each tensor that ``at`` makes. Raises ValueError when the store is 'recompute'."""
        return self._stored().sizes_at(step, [i for place in self._places(step, sites).values() for i in place])

    def _stored(self) -> Store:
        if self.store is None:
            raise ValueError("this capture stores nothing; it is recomputed while sampling.")
        return self.store

    def _places(self, step: int, sites: Collection[Site] | None) -> dict[Site, range]:
        """By site, which of the step's tensors are its own."""
        places, start = {}, 0
        for site in self.request.sites_at(step):
            end = start + held_at(site, self.request.values)
            if sites is None or site in sites:
                places[site] = range(start, end)
            start = end
        return places

    def frames(self, start: int, stop: int) -> Capture:
        """The capture of some of the contents."""
        if (start, stop) == (0, self.trajectory.frame_count):
            return self
        store = None if self.store is None else frames_of(self.store, start, stop)
        return self._replace(trajectory=self.trajectory.frames(start, stop), store=store)

    def plan(self, settings: InjectionSettings) -> InjectionPlan:
        """What the settings mean for this capture. Raises ValueError for what they need and it lacks."""
        request, run = self.request, self.trajectory.schedule
        plan = settings.plan(run.steps, request.feature_sites, request.attention_sites, run.span)
        self.check_covers(plan)
        return plan

    def check_covers(self, plan: InjectionPlan) -> None:
        """Raises ValueError that names what the plan needs and this capture lacks, before any work starts."""
        for step, t in enumerate(self.trajectory.schedule.timesteps):
            lacking = plan.sites_at(step, t) - set(self.request.sites_at(step))
            if lacking:
                raise ValueError(self._lack(min(lacking), step, plan))
            if self.store is not None and plan.sites_at(step, t):
                self.store.require(step)

    def _lack(self, site: Site, step: int, plan: InjectionPlan) -> str:
        feature = site.kind == "feature"
        taken = self.request.feature_sites if feature else self.request.attention_sites
        if site not in taken:
            layers = format_layers(tuple(s.layer for s in taken if s.kind == site.kind)) or "none"
            return f"the plan injects the {site}, which was not captured (captured {site.kind} layers: {layers})."
        name, kept = ("feature", self.request.feature_steps) if feature else ("attention", self.request.attention_steps)
        why = "" if feature or plan.mode == "fixed" else " (adaptive attention blends up to the last step)"
        return (
            f"step {step} of {plan.steps} injects the {site}{why}, but only the first {kept} steps were captured. "
            f"Raise {name}_end_percent of Capture Features/Attention (1 keeps all steps), or lower the injection's"
            f"{'' if feature else ', or use fixed attention'}."
        )


def flatten(taken: Mapping[Site, SiteTensors], sites: tuple[Site, ...]) -> SiteTensors:
    """One step's tensors in storage order."""
    return tuple(t for site in sites for t in taken[site])


def split(flat: SiteTensors, sites: Sequence[Site], values: bool = False) -> dict[Site, SiteTensors]:
    """One step's tensors, in storage order, by site. values: whether self-attention's v are among them."""
    out, start = {}, 0
    for site in sites:
        end = start + held_at(site, values)
        out[site] = flat[start:end]
        start = end
    return out
