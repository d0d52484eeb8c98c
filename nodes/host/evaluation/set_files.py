"""The folders of an evaluation: kept inside the host's own, matched by file name, read one picture at a time."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ....diffstyler_core.metrics.pixels import NotAvailable

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
BETWEEN = "_stylized_"
GRAMMAR = f"<content>{BETWEEN}<style>.png"
COUNTER = re.compile(r"_\d{5}_?$")
"""What Save Image adds to a name."""
PLAIN = re.compile(r"[^\x00-\x1f<>:\"|?*\\/]+")
TOGETHER = 2**20


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


def host_folders() -> dict[str, Path]:
    """The host's directories that a widget may name."""
    homes = {
        "input": folder_paths.get_input_directory(),
        "output": folder_paths.get_output_directory(),
        "temp": folder_paths.get_temp_directory(),
    }
    return {name: Path(home) for name, home in homes.items()}


def plain_parts(name: str, widget: str) -> list[str]:
    """The parts of a path as typed into a widget. Raises ValueError for any that could lead elsewhere."""
    parts = name.strip().strip("/").split("/")
    if name.strip().startswith("/") or any(not PLAIN.fullmatch(p) or p.strip(" .") != p for p in parts):
        raise ValueError(
            f"{widget}: {name!r} is no plain name. Use letters, digits, '-', '_' and '/' for subfolders; "
            "no '..', no drive, no leading '/'."
        )
    return parts


def home_of(name: str, widget: str) -> tuple[Path, list[str]]:
    """(the host's directory that a folder's name starts with, the rest of its parts). Raises ValueError for another."""
    homes = host_folders()
    first, *rest = plain_parts(name, widget)
    if first not in homes:
        raise ValueError(
            f"{widget}: a folder starts with input, output or temp (ComfyUI's own directories), got {name!r}. "
            "Write e.g. output/results, and put the pictures there."
        )
    return homes[first], rest


def folder_of(name: str, widget: str) -> Path:
    """A folder below the host's input, output or temp directory. Raises ValueError for any other, and a missing one."""
    home, rest = home_of(name, widget)
    folder = home.joinpath(*rest)
    if not folder.is_dir():
        raise ValueError(f"{widget}: there is no folder {name!r} (looked for {folder}). Check its name.")
    if not folder.resolve().is_relative_to(home.resolve()):
        raise ValueError(
            f"{widget}: {name!r} is a link that leads out of ComfyUI's {plain_parts(name, widget)[0]} directory, to "
            f"{folder.resolve()}. Put the pictures themselves there."
        )
    return folder


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


def digest(path: Path) -> str:
    """Of a file's bytes. Raises NotAvailable when it cannot be read."""
    try:
        made = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            while part := file.read(TOGETHER):
                made.update(part)
        return made.hexdigest()
    except OSError as error:
        raise NotAvailable(f"it cannot be read ({error.strerror or error})") from error


def read_picture(path: Path, size: int) -> Tensor:
    """[H, W, 3] in 0..1, its shorter side scaled to ``size`` (0: as it is). Raises NotAvailable for no picture.

    PIL's bilinear with antialiasing, as the field's evaluation does with torchvision's Resize.
    """
    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):  # PIL would clip them
                raise ValueError("its values are no 8-bit ones: save it with 8 bits")
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:
        raise NotAvailable(f"it cannot be read as a picture ({str(error) or type(error).__name__})") from error
    shorter = min(picture.size)
    if size and shorter != size:
        sides = [size if side == shorter else int(size * side / shorter) for side in picture.size]
        picture = picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
