"""Shares of a run: windows are given in 0..1, as the host gives start_percent and end_percent, and counted in steps.

A share means the same at every number of steps S, so that a graph holds when S is changed.
"""

from __future__ import annotations


def steps_in(share: float, steps: int) -> int:
    """How many of S steps a share of the run is: the nearest whole number, halves to the even one."""
    return round(share * steps)


def require_share(share: float, name: str) -> None:
    """Raises ValueError that names the input, for anything that is no number in 0..1."""
    if not 0.0 <= share <= 1.0:  # false for NaN as well
        raise ValueError(f"{name} must be a share of the run in 0..1 (0.5: its first half), got {share}.")


def percent(share: float) -> str:
    """A share in words: '60 %'."""
    return f"{100 * share:.4g} %"
