"""What comes next, read in a thread while something else is computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

BOUND = 200_000_000
"""Bytes of RAM that may be read ahead; what is larger is read when it is asked for."""

Key = TypeVar("Key", bound=Hashable)
Read = TypeVar("Read")


class Reading(NamedTuple, Generic[Read]):
    """Something to be read, and the bytes that it will take."""

    nbytes: int
    read: Callable[[], Read]


class ReadAhead(Generic[Key, Read]):
    """Reads in one thread of its own what it is told to expect. ``close`` ends the thread.

    bound: in bytes, of all that was read or is being read and was not yet taken.
    """

    def __init__(self, bound: int = BOUND) -> None:
        self._bound = bound
        self._coming: dict[Key, tuple[int, Future[Read]]] = {}
        self._thread: ThreadPoolExecutor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all that was read or is being read and was not yet taken."""
        return sum(nbytes for nbytes, _ in self._coming.values())

    def expect(self, coming: Mapping[Key, Reading[Read]]) -> None:
        """Starts to read what is coming, in its order, as far as it fits; all else that was read ahead is let go of."""
        self._forget(self._coming.keys() - coming.keys())
        for key, (nbytes, read) in coming.items():
            if key not in self._coming and self.nbytes + nbytes <= self._bound:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "diffstyler read-ahead")
                self._coming[key] = nbytes, self._thread.submit(read)

    def take(self, key: Key, reading: Reading[Read]) -> Read:
        """What was read ahead under this key; else it is read now. An error of the reading is raised here."""
        if key not in self._coming:
            return reading.read()
        _, future = self._coming.pop(key)
        return future.result()

    def close(self) -> None:
        """Lets go of everything and ends the thread, once it has read what it is at."""
        self._forget(set(self._coming))
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _forget(self, keys: set[Key]) -> None:
        """What cannot be called off any more is waited for: until it is done it takes its memory."""
        dropped = [self._coming.pop(key)[1] for key in keys]
        wait([future for future in dropped if not future.cancel()])
