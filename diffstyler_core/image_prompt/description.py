"""A picture's description without its content: style is what is wanted of it (InST with ShareGPT4V, section III)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

QUESTION = (
    "Task: Give high level description English of the style aspects of the image, like color scheme used, style "
    "description of objects, etc."
)
"""The document's question, word by word ("Prompt for Style Description Generation")."""
SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
CLAUSES = re.compile(r"\s*(?:[,;:()]|\s-+\s|\u2013|\u2014)\s*")
JOINTS = re.compile(
    r"\s+(?=(?:and|or|but|while|whereas|with|without|in|on|by|through|using|featuring|against|which|that|where|as)\s)",
    re.IGNORECASE,
)
FIRST = re.compile(
    r"^(?:and|or|but|while|whereas|with|in|on|by|through|using|featuring|against|which|that|where|as)\s+", re.IGNORECASE
)
EMPTY = re.compile(
    r"(?:an?|the|this|that|these|those|its?|he|she|his|her|they|their|there|here|is|are|was|were|be|been|ha[sd]|have|of|to|"
    r"in|on|at|by|and|or|but|with|as|which|image|picture|painting|photo|photograph|artwork|depict(?:s|ing)?|"
    r"show(?:s|ing)?|presents|features)"
)
"""Words that say nothing of a style by themselves."""


@dataclass(frozen=True)
class Cleaned:
    """text: what stays. removed: the pieces that were taken out, in order. unmet: words that the text never named."""

    text: str
    removed: tuple[str, ...]
    unmet: tuple[str, ...]


def content_words(listed: str) -> tuple[str, ...]:
    """The words and phrases of a list that commas or line ends separate; each once, in order."""
    words = (" ".join(part.split()) for part in re.split(r"[,;\n]", listed))
    return tuple(dict.fromkeys(word for word in words if word))


def leave_out(text: str, words: Sequence[str]) -> Cleaned:
    """A description without the clauses that name one of the words; every other sentence stays as it is.

    Words are whole ones in either case, in singular or plural. In a sentence that names one, the clauses (between
    commas and such) that do are taken apart at and, with, in, by, ...: only the parts that name it go. What is left
    may be no whole sentence, which a prompt need not be. Nothing may be left: the text is empty then.
    """
    patterns = {word: _pattern(word) for word in words}
    unmet = tuple(word for word, pattern in patterns.items() if not pattern.search(text))
    removed: list[str] = []
    kept = [_sentence(part, list(patterns.values()), removed) for part in SENTENCES.split(text.strip())]
    return Cleaned(" ".join(part for part in kept if part), tuple(removed), unmet)


def _pattern(word: str) -> re.Pattern[str]:
    """The word or phrase, its plural, and its singular when it is a plural itself."""
    stem = re.escape(word)
    forms = [stem + "(?:s|es)?"]
    if word.lower().endswith("y"):
        forms.append(re.escape(word[:-1]) + "ies")
    if word.lower().endswith("ies"):
        forms.append(re.escape(word[:-3]) + "y")
    if len(word) > 3 and word.lower().endswith("s") and not word.lower().endswith("ss"):
        forms.append(re.escape(word[:-1]))
    return re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?:['\u2019]s)?(?!\w)", re.IGNORECASE)


def _sentence(sentence: str, patterns: list[re.Pattern[str]], removed: list[str]) -> str:
    if not _names(sentence, patterns):
        return sentence.strip()
    clauses = [clause for clause in CLAUSES.split(sentence.strip(" .!?")) if clause]
    kept = [part for clause in clauses for part in _clause(clause, patterns, removed)]
    while kept and _is_empty(kept[0]):  # what only led to something that is gone
        removed.append(kept.pop(0))
    if not kept:
        return ""
    text = FIRST.sub("", ", ".join(kept)).strip()
    return f"{text[:1].upper()}{text[1:]}."


def _clause(clause: str, patterns: list[re.Pattern[str]], removed: list[str]) -> list[str]:
    """What stays of a clause: runs of neighbouring parts, the word that joined a run to what is gone taken off."""
    if not _names(clause, patterns):
        return [clause]
    runs: list[list[str]] = [[]]
    for part in JOINTS.split(clause):
        if _names(part, patterns):
            removed.append(part)
            runs.append([])
        else:
            runs[-1].append(part)
    texts = (FIRST.sub("", " ".join(run)).strip() for run in runs)
    return [text for text in texts if text and not _is_empty(text)]


def _names(text: str, patterns: list[re.Pattern[str]]) -> bool:
    return any(pattern.search(text) for pattern in patterns)


def _is_empty(text: str) -> bool:
    """Whether it says nothing by itself: 'It is', 'The image shows'."""
    return all(EMPTY.fullmatch(word) for word in re.findall(r"\w+", text.lower()))
