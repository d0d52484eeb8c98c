"""Which LoRA acts at which step of a run, made ready for the forward pass (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ....diffstyler_core.lora.schedule import Lora, LoraSchedule
from .adapters import ForwardLora
from .files import NO_LORA, lora_from_file

STRONGEST = 4.0
"""The largest strength, either way, that the nodes take."""


LASTING = 3
"""Steps at one strength from which on merged weights cost less than adding: making them takes about two."""


class LoraRun:
    """The LoRA of every step of a run of S: one, a schedule's, or none (the base model). Each is read and checked once.

    Raises ValueError when a LoRA does not fit the model. ``name`` is what errors call the input.
    """

    def __init__(
        self, model: ModelPatcher, lora: Lora | LoraSchedule | None, strength: float, name: str, steps: int
    ) -> None:
        several = isinstance(lora, LoraSchedule)
        self._schedule = _as_schedule(lora)
        self._strength = strength
        self._steps = steps
        self._idle = [f"note: {name}, {entry}: none of the {steps} steps" for entry in self._schedule.idle(steps)]
        self._ready = {
            entry.start: ForwardLora(model, entry.lora, 1.0, f"{name}, {entry}" if several else name)
            for entry in self._schedule.entries
        }

    def at(self, step: int) -> ForwardLora | None:
        """The LoRA of a step at its strength there; None where the base model acts."""
        entry = self._schedule.at(step, self._steps)
        if entry is None:
            return None
        strength = entry.strength_at(step, self._steps)
        if strength * self._strength == 0.0:
            return None
        lasts = sum(entry.strength_at(other, self._steps) == strength for other in entry.window(self._steps))
        return self._ready[entry.start].at(strength * self._strength, lasts >= LASTING)

    @property
    def bare(self) -> bool:
        """Whether no LoRA acts at any step."""
        return self._strength == 0.0 or not any(entry.strength for entry in self._schedule.entries)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the LoRAs is not applied here, in words."""
        return (*self._idle, *(note for lora in self._ready.values() for note in lora.notes))

    def release(self) -> None:
        """Forgets what the run put on the computing device."""
        for lora in self._ready.values():
            lora.release()


def _as_schedule(lora: Lora | LoraSchedule | None) -> LoraSchedule:
    if isinstance(lora, LoraSchedule):
        return lora
    return LoraSchedule(()) if lora is None else LoraSchedule.constant(lora)


def wired_or_file(lora: Lora | LoraSchedule | None, lora_name: str) -> tuple[Lora | LoraSchedule | None, str]:
    """(the one LoRA that was given by a wire or as a file of models/loras, what to call it); None for neither.

    Raises ValueError when both were given, or the file cannot be read.
    """
    if lora is not None and lora_name != NO_LORA:
        raise ValueError(
            f"lora and lora_name: both a wired LoRA and the file {lora_name!r} were given. "
            f"Set lora_name to '{NO_LORA}', or unplug lora."
        )
    if lora_name != NO_LORA:
        return lora_from_file(lora_name), f"lora_name: {lora_name!r}"
    return lora, "lora"
