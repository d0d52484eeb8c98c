"""What goes into a report names no folder and no user: texts of errors and logs are cleaned of both."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterable
from pathlib import Path

_SEPARATOR = r"[\\/]+"
_PLACE = rf"(?:file:{_SEPARATOR}|[A-Za-z]:{_SEPARATOR}|\\\\+|~{_SEPARATOR}|/(?!/))"
_PART = r"[^\s\\/:*?\"'<>|,;()\[\]]+"
_PATHS = re.compile(rf"(?<![\w.:/\\<>]){_PLACE}(?:{_PART}{_SEPARATOR})+({_PART})?")
_SHORTEST_NAME = 3


def discreet(text: str, folders: Iterable[Path] = (), user: str | None = None) -> str:
    """The text with every path cut to its last part, and the user's name to <user>.

    folders: known ones, cut also where their names have blanks. user: the login name unless told; a name shorter than
    three letters is left, as it is a part of words.
    """
    known = sorted({form for folder in folders for form in _forms(folder)}, key=len, reverse=True)
    for folder in known:
        text = re.sub(re.escape(folder) + rf"(?:{_SEPARATOR}|(?![\w.-]))", "<folder>/", text, flags=re.IGNORECASE)
    text = _PATHS.sub(lambda match: f"<folder>/{match.group(1) or ''}", text)
    text = re.sub(rf"<folder>{_SEPARATOR}(?:{_PART}{_SEPARATOR})*", "<folder>/", text)
    name = _login() if user is None else user
    return text if len(name) < _SHORTEST_NAME else re.sub(rf"\b{re.escape(name)}\b", "<user>", text)


def _forms(folder: Path) -> set[str]:
    """A folder as texts write it; never a root, which would be in every path."""
    if folder == Path(folder.anchor):
        return set()
    return {str(folder), folder.as_posix(), str(folder).replace("\\", "\\\\")}


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name (containers)
        return ""
