"""The settings of one training, and the bounds of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
BOUNDS: dict[str, tuple[float, float]] = {
    "rank": (1, 1024),
    "alpha": (0.01, 4096.0),
    "steps": (1, 100_000),
    "learning_rate": (1e-8, 1.0),
    "weight_decay": (0.0, 1.0),
    "seed": (0, 2**64 - 1),
    "resolution": (64, 4096),
    "batch_size": (1, 64),
}


def require_bounds(config: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Raises ValueError for a setting that is out of its bounds, or NaN."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= high:  # false for NaN as well
            limits = "..".join(f"{x}" if isinstance(x, int) else f"{x:g}" for x in (low, high))
            raise ValueError(f"{name} must lie in {limits}, got {value!r}.")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training; the defaults are the paper's.

    targets: projections of attn1 and attn2 that get a LoRA. resolution: pixels. seed: noise, timesteps, first weights.
    """

    rank: int = 16
    alpha: float = 16.0
    steps: int = 200
    learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    seed: int = 0
    resolution: int = 512
    batch_size: int = 1
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v")
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        require_bounds(self, BOUNDS)
        unknown = [t for t in self.targets if t not in PROJECTIONS]
        if unknown or not self.targets:
            raise ValueError(f"targets must be some of {PROJECTIONS}, got {self.targets}.")

    @property
    def target_pattern(self) -> str:
        """Regular expression of the module paths that get a LoRA."""
        return r".*\.attn[12]\.(" + "|".join(t.replace(".", r"\.") for t in self.targets) + ")"
