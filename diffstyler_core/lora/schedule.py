"""LoRA switch: which style LoRA acts at which sampling step (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from ..diffusion.shares import percent, require_share, steps_in

Lora = Mapping[str, Tensor]
"""A LoRA as the host's LORA_MODEL socket carries it: state dict of named tensors."""


class LoraEntry(NamedTuple):
    """One LoRA from ``start`` to ``end``, both shares of the run, the end exclusive.

    ramp_in, ramp_out: over which share of the run, at the window's two ends, the strength rises and falls.
    """

    lora: Lora
    strength: float
    start: float = 0.0
    end: float = 1.0
    name: str = "LoRA"
    ramp_in: float = 0.0
    ramp_out: float = 0.0

    def window(self, steps: int) -> range:
        """Its steps in a run of S steps. Where one window ends, the next can start: no step is lost or taken twice."""
        return range(steps_in(self.start, steps), steps_in(self.end, steps))

    def strength_at(self, step: int, steps: int) -> float:
        """The strength at a step of the window: k/(r+1) of it at the k-th of r ramp steps, so never 0."""
        window = self.window(steps)
        rising = (step - window.start + 1) / (steps_in(self.ramp_in, steps) + 1)
        falling = (window.stop - step) / (steps_in(self.ramp_out, steps) + 1)
        return self.strength * min(1.0, rising, falling)

    def check(self) -> None:
        """Raises ValueError for numbers that make no window."""
        if not math.isfinite(self.strength):
            raise ValueError(f"{self}: its strength must be a number, got {self.strength}.")
        for name in ("start", "end", "ramp_in", "ramp_out"):
            require_share(getattr(self, name), f"'{self.name}': {name}_percent")
        if self.start >= self.end:
            raise ValueError(f"{self}: start_percent must lie before end_percent.")
        if self.ramp_in + self.ramp_out > self.end - self.start + 1e-9:
            raise ValueError(
                f"{self}: ramp_in_percent and ramp_out_percent take {percent(self.ramp_in)} and "
                f"{percent(self.ramp_out)} of the run, and its window has {percent(self.end - self.start)}. "
                "Shorten a ramp, or widen the window."
            )

    def __str__(self) -> str:
        return f"'{self.name}' {span(self.start, self.end)}"


@dataclass(frozen=True)
class LoraSchedule:
    """Entries that take turns. Gaps use the base model; overlaps are an error that names both entries."""

    entries: tuple[LoraEntry, ...]

    def __post_init__(self) -> None:
        for entry in self.entries:
            entry.check()
        for a, b in pairwise(self._ordered()):
            if b.start < a.end:
                raise ValueError(f"{a} and {b} overlap: end the first where the second starts.")

    @classmethod
    def constant(cls, lora: Lora, name: str = "LoRA") -> LoraSchedule:
        """One LoRA for the whole run."""
        return cls((LoraEntry(lora, 1.0, name=name),))

    def gaps(self) -> list[tuple[float, float]]:
        """(start, end) of the stretches of the run in which the base model acts."""
        ordered = self._ordered()
        ends, starts = [0.0, *(entry.end for entry in ordered)], [*(entry.start for entry in ordered), 1.0]
        return [(a, b) for a, b in zip(ends, starts, strict=True) if a < b]

    def at(self, step: int, steps: int) -> LoraEntry | None:
        """The entry that acts at this step of S; None: the base model."""
        return next((entry for entry in self.entries if step in entry.window(steps)), None)

    def idle(self, steps: int) -> tuple[LoraEntry, ...]:
        """The entries whose windows are too narrow to hold one of S steps."""
        return tuple(entry for entry in self.entries if not entry.window(steps))

    def _ordered(self) -> list[LoraEntry]:
        return sorted(self.entries, key=lambda entry: entry.start)


def span(start: float, end: float) -> str:
    """A stretch of the run in words: '0 to 60 %'."""
    return f"{100 * start:.4g} to {percent(end)}"
