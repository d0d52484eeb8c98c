"""Figures that cannot be given: a reason takes the value's place, and is shown there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class NotAvailable(ValueError):
    """Why a figure, or what it needs, is not there. Raised, or held in the value's place."""


def value_or_reason(compute: Callable[..., T], *given: Any) -> T | NotAvailable:
    """``compute(*given)``, or why there is none: the reason of what is given without a value, or of computing."""
    for each in given:
        if isinstance(each, NotAvailable):
            return each
    try:
        return compute(*given)
    except NotAvailable as reason:
        return NotAvailable(str(reason))  # without the frames, which hold pictures


@contextmanager
def reasons_of(name: str) -> Iterator[None]:
    """A NotAvailable that is raised within names what it is about."""
    try:
        yield
    except NotAvailable as reason:
        raise NotAvailable(f"{name}: {reason}") from reason
