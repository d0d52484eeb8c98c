"""Talking to the person at the terminal."""

from __future__ import annotations

import shutil
import sys
import time


class Failure(Exception):
    """Something a person can mend: which stage failed, why, and what to do about it."""

    def __init__(self, stage: str, reason: str, remedy: str) -> None:
        super().__init__(f"Stage '{stage}' failed: {reason}\nWhat to do: {remedy}")
        self.stage = stage
        self.reason = reason
        self.remedy = remedy


def say(text: str = "") -> None:
    print(text, flush=True)


def duration(seconds: float) -> str:
    """12.3 -> '12.3 s', 75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


class StatusLine:
    """One line that is rewritten in place on a terminal, and printed now and then everywhere else."""

    def __init__(self, every: float = 20.0) -> None:
        self.live = sys.stdout.isatty()
        self.every = every
        self._last = time.monotonic()
        self._width = 0

    def show(self, text: str) -> None:
        if self.live:
            room = max(20, shutil.get_terminal_size().columns - 1)
            text = text[:room]
            sys.stdout.write("\r" + text.ljust(self._width))
            sys.stdout.flush()
            self._width = len(text)
        elif time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            say(text)

    def clear(self) -> None:
        if self.live and self._width:
            sys.stdout.write("\r" + " " * self._width + "\r")
            sys.stdout.flush()
            self._width = 0
