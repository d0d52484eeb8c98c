"""Whether a capture fits where it is kept: known after its first step, for later steps take some of its sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from .sites import Site
from .store import bytes_of
from .taps import SiteTensors, held_at

Kept = Literal["memory", "disk"]
INSTEAD: dict[Kept, str] = {
    "memory": "Choose disk (temporary files) or recompute (stores nothing)",
    "disk": "Free some space, choose recompute (stores nothing)",
}


def split(flat: SiteTensors, sites: Sequence[Site], values: bool = False) -> dict[Site, SiteTensors]:
    """One step's tensors, in storage order, by site. values: whether self-attention's v are among them."""
    out, start = {}, 0
    for site in sites:
        end = start + held_at(site, values)
        out[site] = flat[start:end]
        start = end
    return out


def bytes_to_come(first: SiteTensors, sites: Sequence[Sequence[Site]], values: bool = False) -> int:
    """Bytes of every step but the first, exactly. sites: per step, those that it takes, of the first step's."""
    size = {site: bytes_of(tensors) for site, tensors in split(first, sites[0], values).items()}
    return sum(size[site] for taken in sites[1:] for site in taken)


def fitting(
    steps: Iterable[SiteTensors],
    sites: Sequence[Sequence[Site]],
    storage: Kept,
    room: Callable[[int], float],
    values: bool = False,
) -> Iterator[SiteTensors]:
    """The steps themselves, if all of them fit.

    room: bytes that ``storage`` can still take, asked once when the first step is kept; it is told how many will come.
    Raises ValueError before the second step is made.
    """
    for step, tensors in enumerate(steps):
        yield tensors
        if step == 0:
            _require_room(tensors, bytes_to_come(tensors, sites, values), len(sites) - 1, storage, room)


def _require_room(first: SiteTensors, needed: int, steps: int, storage: Kept, room: Callable[[int], float]) -> None:
    if needed > (free := room(needed)):
        shorter = " or in fp16" if any(t.element_size() > 2 for t in first) else ""
        raise ValueError(
            f"storage: the capture's other {steps} steps need {needed / 1e9:.3g} GB, and {storage} has room "
            f"for {free / 1e9:.3g} GB. {INSTEAD[storage]}, or capture fewer layers or steps{shorter}."
        )
