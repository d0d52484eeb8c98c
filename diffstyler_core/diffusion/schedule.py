"""The noise schedule: which timesteps a run visits and how noisy each one is.

Notation follows the papers: ``abar`` is the cumulative alpha, ``t`` a training timestep (0..999),
``sigma = sqrt((1 - abar) / abar)`` the same level in k-diffusion's variance-exploding scale.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Prediction = Literal["eps", "v"]
Spacing = Literal["leading", "forward 1000"]

PREDICTIONS: tuple[Prediction, ...] = ("eps", "v")
SPACINGS: tuple[Spacing, ...] = ("leading", "forward 1000")
FAR = 0.85
"""Of the table: the first timestep of a run lies above it for all common numbers of steps."""


def leading_timesteps(steps: int, table: int = 1000, offset: int = 1) -> tuple[int, ...]:
    """DDIM 'leading' spacing, noisiest first: S=50 gives 981, 961, ..., 21, 1 (diffusers' name).

    Raises ValueError when ``steps`` does not fit the table.
    """
    if not 1 <= steps < table:
        raise ValueError(f"steps must lie in 1..{table - 1}, got {steps}: choose fewer or more steps.")
    ratio = table // steps
    return tuple(i * ratio + offset for i in reversed(range(steps)))


def spacing_note(schedule: NoiseSchedule) -> str:
    """A line for schedules that begin far from noise; '' for the others.

    Leading spacing steps by table // S, rounded down: S = 501 visits 501, 500, ..., 1 and nothing above.
    """
    first, table = schedule.timesteps[0], len(schedule.abar)
    if first >= FAR * table:
        return ""
    better = [steps for steps in range(1, table) if leading_timesteps(steps, table)[0] >= FAR * table]
    nearest = min(better, key=lambda steps: abs(steps - schedule.steps), default=table - 1)
    return (
        f"note: {schedule.steps} steps begin at t = {first} of {table - 1}, far from noise: "
        f"{100 * math.sqrt(schedule.abar[first]):.0f} % of the picture is still in it. {nearest} steps begin nearer"
    )


@dataclass(frozen=True)
class NoiseSchedule:
    """S sampling steps over a table of cumulative alphas.

    abar: cumulative alpha per training timestep, float64 values in (0, 1], decreasing.
    prediction: what the UNet predicts, "eps" or "v" (velocity).
    timesteps: the S timesteps, noisiest first; step i of a run starts at ``timesteps[i]``.
    spacing: how inversion walks up: "leading" takes the same S steps (DiffStyler 2026),
        "forward 1000" every timestep 1, 2, 3, ... (DiffStyler 2024).
    skipped: noisiest steps of the whole run that this one leaves out (CycleDiffusion); it begins with more picture.
    """

    abar: tuple[float, ...]
    prediction: Prediction
    timesteps: tuple[int, ...]
    spacing: Spacing = "leading"
    skipped: int = 0

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {self.prediction!r}.")
        if self.spacing not in SPACINGS:
            raise ValueError(f"spacing must be one of {SPACINGS}, got {self.spacing!r}.")
        if not self.timesteps:
            raise ValueError("a schedule needs at least one timestep, got none.")
        if any(a <= b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False)):
            raise ValueError(f"timesteps must decrease (noisiest first), got {self.timesteps}.")
        if self.timesteps[-1] < 0 or self.timesteps[0] >= len(self.abar):
            raise ValueError(
                f"timesteps must lie in the table 0..{len(self.abar) - 1}, "
                f"got {self.timesteps[0]}..{self.timesteps[-1]}."
            )
        if self.skipped < 0:
            raise ValueError(f"skipped must be 0 or more steps, got {self.skipped}.")
        if not all(0.0 < a <= 1.0 and math.isfinite(a) for a in self.abar):
            raise ValueError("every cumulative alpha must lie in (0, 1]; the table holds other values.")

    @classmethod
    def leading(
        cls, abar: Sequence[float], prediction: Prediction, steps: int, spacing: Spacing = "leading"
    ) -> NoiseSchedule:
        """The schedule of method.md section 2: DDIM leading spacing with offset 1."""
        table = tuple(float(a) for a in abar)
        return cls(table, prediction, leading_timesteps(steps, len(table)), spacing)

    def without_first(self, skip: int) -> NoiseSchedule:
        """The same run without its ``skip`` noisiest steps. Raises ValueError when none would be left."""
        if not isinstance(skip, int) or not 0 <= skip < self.steps:
            raise ValueError(
                f"skip must lie in 0..{self.steps - 1} (at least one of the {self.steps} steps is run), got {skip!r}. "
                "Lower skip, or take more steps."
            )
        return replace(self, timesteps=self.timesteps[skip:], skipped=self.skipped + skip)

    @property
    def span(self) -> float:
        """T of the run in timesteps: the table's length, less what the skipped steps would cover."""
        return len(self.abar) * self.steps / (self.steps + self.skipped)

    @property
    def steps(self) -> int:
        """S, the number of sampling steps."""
        return len(self.timesteps)

    def sigma(self, t: int) -> float:
        """Noise level of timestep t in the variance-exploding scale."""
        return math.sqrt((1.0 - self.abar[t]) / self.abar[t])

    def level_abar(self, level: int) -> float:
        """Cumulative alpha of level i: ``timesteps[i]`` for i < S; level S is the picture, at abar_0.

        (What diffusers calls ``set_alpha_to_one=False``.)
        """
        return self.abar[self.timesteps[level]] if level < self.steps else self.abar[0]

    def step_at(self, sigma: float) -> int:
        """The step whose level is nearest to ``sigma`` (in log sigma), for samplers that visit others."""
        logs = [-math.log(self.sigma(t)) for t in self.timesteps]
        want = -math.log(max(sigma, 1e-10))
        right = min(bisect.bisect_left(logs, want), self.steps - 1)
        left = max(right - 1, 0)
        return left if abs(logs[left] - want) < abs(logs[right] - want) else right

    def ascent(self) -> tuple[tuple[int, float, int | None], ...]:
        """The inversion's evaluations from the picture upwards: (timestep t, abar of its start, level or None).

        ``level`` is the sampling level that the evaluation arrives at; None for the levels in between,
        which only the 2024 setting visits.
        """
        if self.spacing == "leading":
            starts = [self.abar[0], *(self.abar[t] for t in reversed(self.timesteps[1:]))]
            levels = range(self.steps - 1, -1, -1)
            return tuple((t, a, i) for t, a, i in zip(reversed(self.timesteps), starts, levels, strict=True))
        level_of = {t: i for i, t in enumerate(self.timesteps)}
        return tuple((t, self.abar[t - 1], level_of.get(t)) for t in range(1, self.timesteps[0] + 1))
