"""What there is to say of a training when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ....diffstyler_core.training.train import Settings
from ..text import duration
from .store import Found, Store


def broke_off(
    store: Store,
    state: dict[str, Tensor],
    metadata: dict[str, str],
    stopped_at: int,
    config: Settings,
    save: bool,
) -> str:
    """What to tell of a training whose loss was no longer finite; keeps the last good weights where that is asked."""
    at = f"training broke off at step {stopped_at} of {config.steps}, the loss or its gradient was"
    if not stopped_at:
        return (
            f"model: {at} not finite (NaN or infinity) before the {store.kind.name} had changed anything, so "
            "the learning rate is not the cause: the model gives no finite prediction for this picture and prompt. "
            "There were no good weights to keep. Set precision to fp32, or load another checkpoint."
        )
    kept = "Switch save on to keep the last good weights."
    if save:
        kept = f"The last good weights: {store.save(state, metadata, f'_stopped_at_{stopped_at}').words}."
    return (
        f"learning_rate: {at} no longer finite at a learning rate of {config.learning_rate:g}. {kept} "
        "Lower the learning rate, or use fp32."
    )


def mean_of_last(losses: list[float], count: int = 20) -> float:
    """Mean loss of the last steps; single steps say little, their timesteps are drawn at random."""
    last = losses[-count:]
    return sum(last) / len(last)


def loaded(
    store: Store, found: Found, again: str, metadata: Callable[[dict[str, Any], list[float]], dict[str, str]]
) -> tuple[str, str]:
    """(name, words) of a request that was trained before; what still waited to be saved is saved now.

    again: why another file of it was not taken, or ''. metadata: of settings and losses, for the file.
    """
    if not found.rescued:
        return found.name, f"unchanged request: loaded {found.name}, nothing trained"
    settings = {key: value for key, value in found.record.items() if key != "losses"}
    name, words = store.save(found.state, metadata(settings, found.record["losses"]))
    return name, "\n".join(filter(None, ["unchanged request: nothing trained", again, words]))


def trained_words(steps: int, seconds: float, losses: list[float]) -> str:
    """How long a training took and where its loss came to."""
    return f"trained {steps} steps in {duration(seconds)}, loss {mean_of_last(losses):.4f} (mean of the last steps)"
