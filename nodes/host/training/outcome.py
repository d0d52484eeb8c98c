"""What there is to say of a training when it has ended."""

from __future__ import annotations

from torch import Tensor

from ....diffstyler_core.training.config import TrainConfig
from ....diffstyler_core.training.train import TrainResult
from .store import LoraStore


def broke_off(
    store: LoraStore,
    state: dict[str, Tensor],
    metadata: dict[str, str],
    result: TrainResult,
    config: TrainConfig,
    save: bool,
) -> str:
    """What to tell of a training whose loss was no longer finite; keeps the last good weights where that is asked."""
    at = f"training broke off at step {result.stopped_at} of {config.steps}, the loss or its gradient was"
    if not result.stopped_at:
        return (
            f"model: {at} not finite (NaN or infinity) before the LoRA had changed anything, so the learning rate is "
            "not the cause: the model gives no finite prediction for this picture and prompt. There were no good "
            "weights to keep. Set precision to fp32, or load another checkpoint."
        )
    kept = "Switch save on to keep the last good weights."
    if save:
        kept = f"The last good weights: {store.save(state, metadata, f'_stopped_at_{result.stopped_at}').words}."
    return (
        f"learning_rate: {at} no longer finite at a learning rate of {config.learning_rate:g}. {kept} "
        "Lower the learning rate, or use fp32."
    )


def mean_of_last(losses: list[float], count: int = 20) -> float:
    """Mean loss of the last steps; single steps say little, their timesteps are drawn at random."""
    last = losses[-count:]
    return sum(last) / len(last)
