"""Lists of files for a widget in which those that are not there say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MARK = " (not installed)"


def listed(usual: Sequence[str], there: Iterable[str]) -> list[str]:
    """The usual files, marked where they are missing (choosing one says where to get it), then all others."""
    found = list(there)
    return [*(n if n in found else n + MARK for n in usual), *(n for n in found if n not in usual)]


def plain(name: str) -> str:
    """The file's own name. Prompts may hold either form: files come and go after a workflow was saved."""
    return name.removesuffix(MARK)


def first_installed(names: Sequence[str]) -> str:
    """The default of such a list."""
    return next((name for name in names if not name.endswith(MARK)), names[0])
