"""The injection plan: what is injected at which step, and how strongly (DiffStyler 2026, eqs. 4-6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .attention import BLENDS, Blend
from .sites import Site

Mode = Literal["adaptive", "fixed"]
MODES: tuple[Mode, ...] = ("adaptive", "fixed")


@dataclass(frozen=True)
class InjectionPlan:
    """Windows over the S sampling steps, counted from the noisiest.

    steps: S. feature_steps, attention_steps: how many first steps override completely, in [0, S].
    mode: "fixed" (2024) stops at attention_steps; "adaptive" (2026) then lets the style's own attention in.
    blend: what is blended afterwards, see ``attention.inject_attention``.
    feature_sites, attention_sites: where.
    train_timesteps: T, the length of the training schedule; of a run that skips its first steps, what is left of it.
    """

    steps: int
    feature_steps: int
    attention_steps: int
    feature_sites: tuple[Site, ...] = ()
    attention_sites: tuple[Site, ...] = ()
    mode: Mode = "adaptive"
    blend: Blend = "qk"
    train_timesteps: float = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"an injection plan needs at least one step, got {self.steps}.")
        for name in ("feature_steps", "attention_steps"):
            value = getattr(self, name)
            if not 0 <= value <= self.steps:
                raise ValueError(
                    f"{name} must lie in 0..{self.steps} (the trajectory's steps), got {value}. "
                    f"Lower {name}, or invert with more steps."
                )
        if self.mode not in MODES:
            raise ValueError(f"attention mode must be one of {MODES}, got {self.mode!r}.")
        if self.blend not in BLENDS:
            raise ValueError(f"blend must be one of {BLENDS}, got {self.blend!r}.")

    @property
    def threshold(self) -> float:
        """T_a in timesteps: where ``attention_steps`` ends, T_a = T (1 - attention_steps / S)."""
        return self.train_timesteps * (1.0 - self.attention_steps / self.steps)

    def kappa(self, step: int, t: float) -> float:
        """The style's own share of the attention at this step and timestep t: 0 overrides, 1 injects nothing.

        Adaptive: 0 for the first ``attention_steps``, then clamp((T_a - t) / (T - T_a), 0, 1) (eq. 5). Where S does
        not divide T, the first steps' own timesteps may lie a little below T_a: they override all the same.
        """
        if step < self.attention_steps:
            return 0.0
        if self.mode == "fixed" or self.attention_steps == 0:
            return 1.0
        t_a = self.threshold
        return min(max((t_a - t) / (self.train_timesteps - t_a), 0.0), 1.0)

    def sites_at(self, step: int, t: float) -> frozenset[Site]:
        """Every site that takes something from the content at this step."""
        sites = set(self.feature_sites) if step < self.feature_steps else set()
        if self.kappa(step, t) < 1.0:
            sites.update(self.attention_sites)
        return frozenset(sites)
