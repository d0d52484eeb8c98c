"""Texts that are typed into widgets."""

from __future__ import annotations

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
