"""What came out of a part of the tests, and the table at the end."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .console import duration


@dataclass(frozen=True)
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(frozen=True)
class Outcome:
    """`state`: 'ok', 'FAILED' or 'skipped'; `counts` of pytest, none for a checker."""

    part: str
    state: str
    seconds: float = 0.0
    counts: Counts | None = None
    note: str = ""


def read_junit(file: Path) -> Counts | None:
    """The counts in pytest's --junitxml file; None when pytest did not live to write it."""
    if not file.is_file():
        return None
    suites = ElementTree.parse(file).getroot().iter("testsuite")
    total = Counts()
    for suite in suites:
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total += Counts(max(0, tests - failed - skipped), failed, skipped)
    return total


def table(outcomes: Sequence[Outcome]) -> str:
    """The table, with the summed counts alone on the last line."""
    lines = [f"{'part':<14}{'result':<10}{'passed':>7}{'failed':>7}{'skipped':>8}{'time':>14}"]
    total = Counts()
    for outcome in outcomes:
        counts = outcome.counts
        total += counts or Counts()
        numbers = (counts.passed, counts.failed, counts.skipped) if counts else ("-", "-", "-")
        row = f"{outcome.part:<14}{outcome.state:<10}{numbers[0]:>7}{numbers[1]:>7}{numbers[2]:>8}"
        lines.append(f"{row}{duration(outcome.seconds):>14}" + (f"  {outcome.note}" if outcome.note else ""))
    return "\n".join([*lines, "", str(total)])
