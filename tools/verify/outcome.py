"""What came out of a self-check: its figure, its bound, and whether it holds."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """One line of the report. error: why there is no figure; empty where there is one."""

    claim: str
    figure: str
    bound: str
    passed: bool
    error: str = ""


class Verdict(NamedTuple):
    """A figure against its bound, in words."""

    figure: str
    bound: str
    passed: bool


def at_most(value: float, bound: float, unit: str = "", why: str = "") -> Verdict:
    """Holds up to the bound. why: where the bound comes from."""
    return Verdict(_number(value, unit), _reason(f"at most {_number(bound, unit)}", why), value <= bound)


def at_least(value: float, bound: float, unit: str = "", why: str = "") -> Verdict:
    """Holds from the bound on."""
    return Verdict(_number(value, unit), _reason(f"at least {_number(bound, unit)}", why), value >= bound)


def equal(what: str, found: object, expected: object) -> Verdict:
    """Holds where the two are the same; ``what`` says what they are."""
    same = found == expected
    return Verdict("the same" if same else f"{found}, expected {expected}", f"{what}, exactly", same)


def _number(value: float, unit: str) -> str:
    return f"{value:.3g}{f' {unit}' if unit else ''}"


def _reason(bound: str, why: str) -> str:
    return f"{bound} ({why})" if why else bound
