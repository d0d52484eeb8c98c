"""Texts that are typed into widgets."""

from __future__ import annotations

from collections.abc import Sequence

NAME_LENGTH = 200


def require_text(value: str, name: str, most: int = NAME_LENGTH) -> str:
    """The text, when it has at most ``most`` letters and can be written as UTF-8 (no half of a surrogate pair)."""
    if len(value) > most:
        raise ValueError(
            f"{name} may have {most} letters at most, got {len(value)}, starting {value[:20]!a}. Shorten it."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} holds half of a letter (a lone surrogate), got {value[:40]!a}. Type it anew.")
    return value


def one_line(text: str) -> str:
    """A name as words and errors show it: no line ends, no space around it."""
    return " ".join(text.split())


def require_choice(value: str, name: str, known: Sequence[str]) -> str:
    """The value, when it is one of those that the widget lists."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r:.100}.")
    return value
