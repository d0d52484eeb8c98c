"""How many processes run a suite's tests side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

GB_EACH = 4  # a host test's process at its peak, with room
MOST = 8
_ALONE = ("-n", "--numprocesses", "-s", "--capture=no", "--pdb", "--trace", "--collect-only", "--co", "-p")


def lanes(pytest_args: Sequence[str], cores: int | None = None, ram: float | None = None) -> list[str]:
    """pytest-xdist's arguments: one process a core, as far as the memory goes.

    None where the person's own arguments say how many, or want to talk with the tests. ``cores`` and ``ram`` (GB) are
    this machine's where not given.
    """
    if any(argument.startswith(_ALONE) for argument in pytest_args):
        return []
    cores = _cores() if cores is None else cores
    ram = _ram() if ram is None else ram
    count = min(cores, int(ram // GB_EACH), MOST)
    return ["-n", str(count), "--dist", "worksteal"] if count > 1 else []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram() -> float:
    """The machine's memory in GB; plenty where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return float(GB_EACH * MOST)
