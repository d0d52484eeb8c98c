"""One layer's forward for a batch of equal chunks: the layer itself once, and in each chunk what acts there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ....diffstyler_core.lora.low_rank import AddedLowRank, Factors
from .layers_attached import Forward


class Added(Protocol):
    """What is added to the output of some rows."""

    def add(self, out: Tensor, x: Tensor) -> None: ...


class Part(NamedTuple):
    """What acts in the rows of a chunk. own: what computes them instead of the layer. added: to what was computed."""

    own: Forward | None = None
    added: AddedLowRank | Added | None = None


class _Run(NamedTuple):
    """Neighbouring chunks from ``start`` to before ``stop``."""

    start: int
    stop: int

    def of(self, rows: Tensor, chunks: int) -> Tensor:
        if self.stop - self.start == chunks:
            return rows
        size = len(rows) // chunks
        return rows[self.start * size : self.stop * size]


class LayerForward:
    """A forward for as many equal chunks as ``parts``.

    base: the layer's own. fresh: whether its output is nobody else's, so that it may be added to in place.
    alone: what is added to all rows alike, None where that differs or nothing is.
    """

    def __init__(self, base: Forward, parts: Sequence[Part], factors: Factors, fresh: bool) -> None:
        self._chunks, self._factors, self._fresh = len(parts), factors, fresh
        self._computed = [(run, of[0].own or base) for run, of in _runs(parts, lambda part: id(part.own))]
        self._added = [(run, of) for run, of in _runs(parts, _together) if of[0].added is not None]
        self._alike = all(part.own is parts[0].own and part.added is parts[0].added for part in parts)
        self.alone = parts[0].added if self._alike else None

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        chunks = self._chunks
        if not self._alike and len(x) % chunks:
            raise RuntimeError(f"a batch of {len(x)} rows cannot be shared by {chunks} prompts of one size.")
        parts = [forward(run.of(x, chunks), *args, **kwargs) for run, forward in self._computed]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        if not self._added:
            return out
        if not out.is_contiguous() or not (self._fresh or len(parts) > 1):
            out = out.clone(memory_format=torch.contiguous_format)
        for run, of in self._added:
            self._add(run.of(out, chunks), run.of(x, chunks), of)
        return out

    def _add(self, out: Tensor, x: Tensor, parts: Sequence[Part]) -> None:
        first = parts[0].added
        if isinstance(first, AddedLowRank):
            self._factors.add(out, x, [part.added for part in parts])  # type: ignore[misc]  # all are, see _together
        elif first is not None:
            first.add(out, x)


def _together(part: Part) -> object:
    """What neighbours must have in common to be added in one go."""
    if isinstance(part.added, AddedLowRank):
        return part.added.rank
    return None if part.added is None else id(part.added)


def _runs(parts: Sequence[Part], key: Any) -> Iterable[tuple[_Run, list[Part]]]:
    """Neighbouring chunks that have a key in common, with their parts."""
    start = 0
    for _, group in groupby(parts, key):
        of = list(group)
        yield _Run(start, start := start + len(of)), of
