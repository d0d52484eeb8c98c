"""What is asked of a vision language model, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks.numbers import require_number
from ..checks.text import require_text

LONGEST = 2048
"""Tokens of an answer."""
LONGEST_QUESTION = 20000


@dataclass(frozen=True)
class Sampling:
    """Words drawn at random: temperature above 0, the likeliest words that make up top_p, and a seed."""

    temperature: float
    top_p: float
    seed: int

    def __post_init__(self) -> None:
        require_number(self.temperature, "temperature", 0.01, 2.0)
        require_number(self.top_p, "top_p", 0.01, 1.0)
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in 0..2^64-1, got {self.seed}.")


@dataclass(frozen=True)
class Request:
    """A question of at most max_length tokens' answer; without ``sampling`` the likeliest word is taken each time.

    Raises ValueError for an empty question and for settings out of their bounds.
    """

    question: str
    max_length: int
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        require_text(self.question, "question", LONGEST_QUESTION)
        if not self.question.strip():
            raise ValueError(f"question: words for the model are needed, got {self.question!r}. Ask for the style.")
        require_number(self.max_length, "max_length", 1, LONGEST)


@dataclass(frozen=True)
class Answer:
    """The text, stripped; whether it was cut at max_length; the answer's tokens."""

    text: str
    is_cut: bool
    tokens: tuple[int, ...]
