"""Which results of a folder are measured against which content and style: matched by their file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
BETWEEN = "_stylized_"
GRAMMAR = f"<content>{BETWEEN}<style>.png"
COUNTER = re.compile(r"_\d{5}_?$")
"""What Save Image adds to a name."""


class Task(NamedTuple):
    """A result with what it was made of."""

    result: Path
    content: Path
    style: Path


class Skipped(NamedTuple):
    """A file that takes no part, and why."""

    name: str
    why: str


class Plan(NamedTuple):
    """What an evaluation has to do. combinations: contents times styles that the folders hold."""

    tasks: list[Task]
    skipped: list[Skipped]
    contents: int
    styles: int


def pictures_in(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """Picture files of a folder by name, without its subfolders; links that lead out of it are skipped."""
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    inside = [f for f in files if f.is_file() and f.resolve().is_relative_to(folder.resolve())]
    return inside, [
        Skipped(f.name, "it is no file, or a link that leads out of its folder") for f in files if f not in inside
    ]


def by_stem(folder: Path, widget: str) -> tuple[dict[str, Path], list[Skipped]]:
    """Pictures by name without ending, and files that take no part. Raises ValueError for none, and two of one name."""
    found: dict[str, Path] = {}
    files, skipped = pictures_in(folder)
    for file in files:
        if file.stem in found:
            raise ValueError(
                f"{widget}: {found[file.stem].name} and {file.name} have one name, and results cannot tell which they "
                "were made of. Rename one."
            )
        found[file.stem] = file
    if not found:
        raise ValueError(
            f"{widget}: there are no pictures in {folder}. Put some there ({', '.join(sorted(SUFFIXES))})."
        )
    return found, skipped


def make_plan(results: Path, contents: Path, styles: Path) -> Plan:
    """All results whose names say what they were made of. Raises ValueError when there is none."""
    content_files, skipped_contents = by_stem(contents, "content_folder")
    style_files, skipped_styles = by_stem(styles, "style_folder")
    files, skipped = pictures_in(results)
    skipped += skipped_contents + skipped_styles
    tasks = []
    for file in files:
        made_of = readings(file.stem, content_files, style_files)
        if len(made_of) == 1:
            content, style = made_of[0]
            tasks.append(Task(file, content_files[content], style_files[style]))
        else:
            why = "its name can be read in several ways" if made_of else "its name fits no content and style"
            skipped.append(Skipped(file.name, why))
    if not tasks:
        example = f"{next(iter(content_files))}{BETWEEN}{next(iter(style_files))}.png"
        raise ValueError(
            f"results_folder: none of the {len(files)} pictures in {results} is named {GRAMMAR} after a content and a "
            f"style. Name them so, e.g. {example}."
        )
    tasks.sort(key=lambda task: (task.style, task.result))
    return Plan(tasks, skipped, len(content_files), len(style_files))


def readings(stem: str, contents: dict[str, Path], styles: dict[str, Path]) -> list[tuple[str, str]]:
    """Every (content, style) that a result's name can mean; without Save Image's counter if it means none with it."""
    places = [at.start() for at in re.finditer(f"(?={BETWEEN})", stem)]
    split = [(stem[:at], stem[at + len(BETWEEN) :]) for at in places]
    found = [(content, style) for content, style in split if content in contents and style in styles]
    bare = COUNTER.sub("", stem)
    return found if found or bare == stem else readings(bare, contents, styles)
