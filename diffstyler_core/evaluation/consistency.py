"""How steady a clip is: each frame against the next one, warped onto it by the content clip's own motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..metrics.available import NotAvailable, value_or_reason
from ..metrics.flow import optical_flow
from ..metrics.warping import Difference, seen_in_both, warped_difference
from .csv_table import csv_text

HEADER = (
    "frame", "next_frame", "difference", "content_difference", "warping_error", "content_warping_error", "seen",
    "not_available",
)  # fmt: skip


class Step(NamedTuple):
    """A frame and the next one, of the result and of its content. seen: the share of pixels that both frames show."""

    result: Difference
    content: Difference
    seen: float


class Steadiness(NamedTuple):
    """Every step of a clip, from frame 1 to 2 on; the reason where there is none to give."""

    steps: Sequence[Step | NotAvailable]

    @property
    def found(self) -> dict[int, Step]:
        """The steps that have figures, by their first frame's number, from 1."""
        return {number: step for number, step in enumerate(self.steps, 1) if not isinstance(step, NotAvailable)}

    def mean(self) -> Step:
        """Mean of the steps. Raises ValueError where no step has figures."""
        steps = list(self.found.values())
        if not steps:
            raise ValueError(
                "content: no frame shows anything of the one before it, so no motion can be followed. "
                "Wire the frames of one clip, in their order."
            )
        return Step(
            _mean_difference([step.result for step in steps]),
            _mean_difference([step.content for step in steps]),
            _mean([step.seen for step in steps]),
        )


def step_of(result: tuple[Tensor, Tensor], content: tuple[Tensor, Tensor]) -> Step | NotAvailable:
    """Two neighbouring frames [H, W, 3] of a result and of its content, all of one size, in 0..1."""
    there, back = optical_flow(*content), optical_flow(*content[::-1])
    seen = seen_in_both(there, back)

    def figures() -> Step:
        ours, theirs = (warped_difference(*pair, there, seen) for pair in (result, content))
        return Step(ours, theirs, seen.double().mean().item())

    return value_or_reason(figures)


def describe(steady: Steadiness) -> str:
    """The means, how much was seen, the least steady step, and what has no figures. Raises as ``mean`` does."""
    mean, found = steady.mean(), steady.found
    worst = max(found, key=lambda number: found[number].result.absolute)
    of = f"{len(found)} of {len(steady.steps)} steps" if len(found) < len(steady.steps) else f"{len(found) + 1} frames"
    lines = [
        f"{of}: warped-frame difference {mean.result.absolute:.4f}, the content's own {mean.content.absolute:.4f}",
        f"warping error {mean.result.square:.5f}, the content's own {mean.content.square:.5f}",
        f"least steady: frame {worst} to {worst + 1}, {found[worst].result.absolute:.4f}",
        f"{100 * mean.seen:.1f} % of the pixels are seen in both frames of a step",
    ]
    missing = [(n, reason) for n, reason in enumerate(steady.steps, 1) if isinstance(reason, NotAvailable)]
    return "\n".join([*lines, *(f"frame {n} to {n + 1}: not available, {reason}" for n, reason in missing)])


def table(steady: Steadiness) -> str:
    """CSV: a row for each step."""
    return csv_text(HEADER, [(n, n + 1, *_cells(step)) for n, step in enumerate(steady.steps, 1)])


def _cells(step: Step | NotAvailable) -> tuple[object, ...]:
    if isinstance(step, NotAvailable):
        return (*[""] * 5, str(step))
    result, content = step.result, step.content
    return (result.absolute, content.absolute, result.square, content.square, step.seen, "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_difference(all_: Sequence[Difference]) -> Difference:
    return Difference(_mean([one.absolute for one in all_]), _mean([one.square for one in all_]))
