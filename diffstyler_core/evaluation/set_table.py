"""The per-pair table of an evaluation on disk: appended row by row, taken up again, one writer's own."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("result", "content", "style", "key")
REASONS = "not_available"
"""The column that says, as JSON, why a figure of the row is empty."""


def append_text(path: Path, text: str) -> None:
    """Appends at once. Raises ValueError when the disk does not take it."""
    with _writing(path), path.open("a", newline="", encoding="utf-8", errors="replace") as file:
        file.write(text)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole: what was there before stays until then. Raises ValueError when the disk does not take it."""
    fresh = path.with_name(f"{path.name}.new")
    with _writing(path):
        fresh.unlink(missing_ok=True)  # it might be a link
        fresh.write_text(text, encoding="utf-8", errors="replace", newline="")
        os.replace(fresh, path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"filename_prefix: {path} cannot be written ({error.strerror or error}). Make room, mend its permissions "
            "or close the program that has it open, and queue again: pairs in the table are not computed twice."
        ) from error


class PairTable:
    """Rows by result. ``key`` says what a row was computed from: a row with another key is out of date."""

    def __init__(self, path: Path, metrics: Sequence[str]) -> None:
        self.path = path
        self.columns = (*NAMES, *metrics, REASONS)
        self.rows = self._read()

    def find(self, result: str, key: str) -> dict[str, str] | None:
        """The row of that result, when it is up to date."""
        row = self.rows.get(result)
        return row if row is not None and row["key"] == key and row_reasons(row) is not None else None

    def append(self, row: dict[str, Any]) -> dict[str, str]:
        """Writes a row at once. Raises ValueError when the disk does not take it; all rows before it are safe."""
        text = {name: _cell(row.get(name)) for name in self.columns}
        new = not self.path.exists() or self.path.stat().st_size == 0
        append_text(self.path, self._text([text], header=new))
        self.rows[row["result"]] = text
        return text

    def tidy(self, folder: str, results: set[str]) -> None:
        """Writes the table anew in the order of names: one row a result, none for results that left ``folder``."""
        gone = [name for name in self.rows if name.rpartition("/")[0] == folder and name not in results]
        for name in gone:
            del self.rows[name]
        write_text(self.path, self._text([self.rows[name] for name in sorted(self.rows)], header=True))

    def _text(self, rows: list[dict[str, str]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _read(self) -> dict[str, dict[str, str]]:
        """The rows that are whole; one that was cut off is removed. Raises ValueError for another kind of file."""
        if not self.path.exists():
            return {}
        try:
            text = self.path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise ValueError(
                f"filename_prefix: {self.path} cannot be read ({error.strerror or error}). Choose another name."
            ) from error
        whole = text[: text.rfind("\n") + 1]
        try:
            lines = list(csv.reader(io.StringIO(whole)))
        except csv.Error:
            lines = []
        if text and (not lines or tuple(lines[0]) != self.columns):
            raise ValueError(
                f"filename_prefix: {self.path} is no table of this node (it begins {text[:60]!r}) and is left alone. "
                "Choose another name."
            )
        if whole != text:
            write_text(self.path, whole)
        rows = [dict(zip(self.columns, line, strict=True)) for line in lines[1:] if len(line) == len(self.columns)]
        return {row["result"]: row for row in rows}


def row_reasons(row: dict[str, str]) -> dict[str, str] | None:
    """Why figures of that row are empty, by their keys; None where the cell says something else, edited by hand."""
    try:
        found = json.loads(row[REASONS] or "{}")
    except ValueError:
        return None
    return {str(key): str(why) for key, why in found.items()} if isinstance(found, dict) else None


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
