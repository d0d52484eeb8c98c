"""Checks before anything runs: what ``validate_inputs`` of the nodes gives the host."""

from __future__ import annotations

from collections.abc import Callable


def refusal(*checks: Callable[[], object]) -> bool | str:
    """True, or what the first check that raises ValueError says."""
    try:
        for check in checks:
            check()
    except ValueError as error:
        return str(error)
    return True
