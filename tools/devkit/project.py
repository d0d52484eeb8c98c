"""The dependency lists of pyproject.toml, which are the only place that names them.

Python 3.10 has no TOML reader. The arrays that are needed here are plain arrays of strings, and such an array
(comments and trailing comma included) is also a Python list.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from .console import Failure

_OLDEST = re.compile(r"requires-comfyui\s*=\s*\">=(\d+(?:\.\d+)*)\"")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def requirements(pyproject: Path, *extras: str) -> tuple[str, ...]:
    """[project] dependencies, followed by those of the named optional groups."""
    text = pyproject.read_text(encoding="utf-8")
    found = list(string_array(text, "project", "dependencies"))
    for extra in extras:
        found += string_array(text, "project.optional-dependencies", extra)
    return tuple(found)


def oldest_comfyui(pyproject: Path) -> tuple[int, ...]:
    """The version in [tool.comfy] requires-comfyui = ">=1.2.3"."""
    lines = _table_lines(pyproject.read_text(encoding="utf-8"), "tool.comfy")
    found = next((match for line in lines if (match := _OLDEST.match(line.strip()))), None)
    if found is None:
        raise Failure(
            "read pyproject.toml",
            "[tool.comfy] says no requires-comfyui.",
            'write it as requires-comfyui = ">=1.2.3" in that table.',
        )
    return tuple(int(number) for number in found.group(1).split("."))


def string_array(text: str, table: str, key: str) -> tuple[str, ...]:
    """`key = ["...", ...]` of a table in a TOML text."""
    lines = iter(_table_lines(text, table))
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and name.strip().strip("\"'") == key:
            return _read_list(value, lines, f"[{table}] {key}")
    raise _unreadable(f"[{table}] {key}", "there is no such entry")


def distribution_name(requirement: str) -> str:
    """'peft>=0.17,<1' -> 'peft'."""
    match = _NAME.match(requirement.strip())
    if match is None:
        raise _unreadable(repr(requirement), "it does not begin with a package name")
    return match.group()


def _table_lines(text: str, table: str) -> list[str]:
    inside = False
    kept: list[str] = []
    for line in text.splitlines():
        header = re.match(r"^\[{1,2}([^\[\]\"']+)\]{1,2}\s*(#.*)?$", line.strip())
        if header:
            inside = header.group(1).strip() == table
        elif inside:
            kept.append(line)
    return kept


def _read_list(value: str, lines: object, where: str) -> tuple[str, ...]:
    source = value.strip()
    while True:
        try:
            items = ast.literal_eval(source)
            break
        except (SyntaxError, ValueError):  # the array goes on in the next line
            following = next(lines, None)  # type: ignore[call-overload]
            if following is None:
                raise _unreadable(where, "its array of strings does not end") from None
            source += "\n" + following
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _unreadable(where, "it is not an array of strings")
    return tuple(items)


def _unreadable(where: str, why: str) -> Failure:
    return Failure("read pyproject.toml", f"{where}: {why}.", 'write it as key = ["name>=1", ...] in that table.')
