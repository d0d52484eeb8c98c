"""LoRA switch: which style LoRA acts at which sampling step (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Lora = Mapping[str, Tensor]
"""A LoRA as the host's LORA_MODEL socket carries it: state dict of named tensors."""


class LoraEntry(NamedTuple):
    """One LoRA for the steps start_at_step <= i < end_at_step (KSamplerAdvanced's convention).

    ramp_in, ramp_out: over how many of its first and last steps the strength rises and falls, to soften a switch.
    """

    lora: Lora
    strength: float
    start_at_step: int
    end_at_step: int
    name: str = "LoRA"
    ramp_in: int = 0
    ramp_out: int = 0

    def strength_at(self, step: int) -> float:
        """The strength at a step of the window: k/(r+1) of it at the k-th of r ramp steps, so never 0."""
        rising = (step - self.start_at_step + 1) / (self.ramp_in + 1)
        falling = (self.end_at_step - step) / (self.ramp_out + 1)
        return self.strength * min(1.0, rising, falling)

    def __str__(self) -> str:
        return f"'{self.name}' at steps {self.start_at_step}..{self.end_at_step}"


@dataclass(frozen=True)
class LoraSchedule:
    """Entries that take turns. Gaps use the base model; overlaps are an error that names both entries."""

    entries: tuple[LoraEntry, ...]

    def __post_init__(self) -> None:
        for entry in self.entries:
            if not math.isfinite(entry.strength):
                raise ValueError(f"{entry}: its strength must be a number, got {entry.strength}.")
            if not 0 <= entry.start_at_step < entry.end_at_step:
                raise ValueError(f"{entry}: start_at_step must be 0 or more and lie before end_at_step.")
            steps, ramps = entry.end_at_step - entry.start_at_step, entry.ramp_in + entry.ramp_out
            if min(entry.ramp_in, entry.ramp_out) < 0:
                raise ValueError(
                    f"{entry}: ramp_in and ramp_out must be 0 or more, got {entry.ramp_in} and {entry.ramp_out}."
                )
            if ramps > steps:
                raise ValueError(
                    f"{entry}: ramp_in and ramp_out take {entry.ramp_in} + {entry.ramp_out} steps of the {steps} it "
                    "has. Shorten a ramp, or widen the window."
                )
        ordered = sorted(self.entries, key=lambda e: e.start_at_step)
        for a, b in zip(ordered, ordered[1:], strict=False):
            if b.start_at_step < a.end_at_step:
                raise ValueError(f"{a} and {b} overlap: end the first where the second starts.")

    @classmethod
    def constant(cls, lora: Lora, strength: float, steps: int, name: str = "LoRA") -> LoraSchedule:
        """One LoRA over all S steps."""
        return cls((LoraEntry(lora, strength, 0, steps, name),))

    def check(self, steps: int) -> None:
        """Raises ValueError when an entry reaches beyond the S steps of the run."""
        for entry in self.entries:
            if entry.end_at_step > steps:
                raise ValueError(f"{entry} reaches beyond the run's {steps} steps: end it at {steps} or earlier.")

    @property
    def end(self) -> int:
        """The step from which no entry acts any more."""
        return max((entry.end_at_step for entry in self.entries), default=0)

    def gaps(self) -> list[tuple[int, int]]:
        """(start, end) of the stretches before ``end`` in which the base model acts, end exclusive."""
        ordered = sorted(self.entries, key=lambda e: e.start_at_step)
        starts = [0, *(entry.end_at_step for entry in ordered)]
        return [(a, e.start_at_step) for a, e in zip(starts, ordered, strict=False) if a < e.start_at_step]

    def at(self, step: int) -> LoraEntry | None:
        """The entry that acts at this step; None: the base model."""
        for entry in self.entries:
            if entry.start_at_step <= step < entry.end_at_step:
                return entry
        return None
