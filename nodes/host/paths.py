"""Files and folders that widgets name, kept inside the host's own: no name and no link leads anywhere else."""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath

import folder_paths

from .checks.text import require_text

LONGEST_PART = 200
"""Bytes of one part of a new file's name: file systems take 255, and endings are added to it."""
LONGEST_PATH = 4096
"""Letters of a file's name with its folders, as far as systems take them."""
PLAIN = re.compile(r"[^\x00-\x1f<>:\"|?*\\/\ud800-\udfff]+")


def plain_name(name: str, widget: str, home: str) -> str:
    """A name of something new, with subfolders, that every file system takes and that stays below ``home``.

    Raises ValueError for '..', drives, hidden files, control characters, lone surrogates and overlong parts.
    """
    parts = name.strip().split("/")
    if any(not PLAIN.fullmatch(part) or part.strip(" .") != part for part in parts):
        raise ValueError(
            f"{widget}: {shortened(name)} is no plain name. Use letters, digits, '-', '_' and '/' for "
            f"subfolders of {home}; no '..', no drive, no leading '/'."
        )
    longest = max(len(part.encode()) for part in parts)
    if longest > LONGEST_PART:
        raise ValueError(
            f"{widget}: file systems take no more than {LONGEST_PART} bytes for a name of it, got {longest} in "
            f"{shortened(name)}. Use a shorter one."
        )
    return "/".join(parts)


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes, what cannot be printed escaped, cut in the middle when it is long."""
    return repr(text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}")


def is_inside(path: Path, home: Path) -> bool:
    """Whether a path lies in a folder once every link on its way is followed."""
    return path.resolve().is_relative_to(home.resolve())


def find_model_file(kind: str, name: str) -> Path | None:
    """The file of that name in the host's folders of a kind of models; None for none, and for a name leading out."""
    if not _stays_below(name):
        return None
    paths = (Path(home) / name for home in folder_paths.get_folder_paths(kind))
    return next((path for path in paths if os.path.isfile(path)), None)


def model_file(kind: str, name: str, widget: str, endings: tuple[str, ...], links: bool = False) -> Path | None:
    """The file of that name in the host's folders of a kind of models; None when there is none.

    links: whether a link may lead out of those folders, as the host's own loaders let it.
    Raises ValueError for a name of another ending, one that leads elsewhere, and for a link that must not.
    """
    require_text(name, widget, LONGEST_PATH)
    if not name.endswith(endings) or not _stays_below(name):
        raise ValueError(
            f"{widget} must name a {', '.join(endings)} file inside models/{kind}, got {shortened(name)}. "
            "Choose one there."
        )
    found = find_model_file(kind, name)
    if found is None or links or any(is_inside(found, Path(home)) for home in folder_paths.get_folder_paths(kind)):
        return found
    raise ValueError(
        f"{widget}: {shortened(name)} is a link that leads out of models/{kind}, to {found.resolve()}. "
        f"Put the file itself there, or name its folder in extra_model_paths.yaml as '{kind}'."
    )


def _stays_below(name: str) -> bool:
    """Whether a relative path, written as any system writes it, has no drive, no root and no '..'."""
    return ".." not in name.replace("\\", "/").split("/") and not PureWindowsPath(name).anchor


def host_home(name: str, widget: str) -> tuple[Path, Path]:
    """(the host's input, output or temp directory that a folder's name starts with, the folder itself).

    Raises ValueError for any other name; whether the folder is there is not looked at.
    """
    homes = {
        "input": folder_paths.get_input_directory(),
        "output": folder_paths.get_output_directory(),
        "temp": folder_paths.get_temp_directory(),
    }
    first, *rest = folder_name(name, widget).split("/")
    if first not in homes:
        raise ValueError(
            f"{widget}: a folder starts with input, output or temp (ComfyUI's own directories), got {shortened(name)}. "
            "Write e.g. output/results, and put the pictures there."
        )
    home = Path(homes[first])
    return home, home.joinpath(*rest)


def host_folder(name: str, widget: str) -> Path:
    """A folder below the host's input, output or temp directory. Raises ValueError for any other, and a missing one."""
    home, folder = host_home(name, widget)
    if not os.path.isdir(folder):
        raise ValueError(f"{widget}: there is no folder {shortened(name)} (looked for {folder}). Check its name.")
    if not is_inside(folder, home):
        which = folder_name(name, widget).split("/")[0]
        raise ValueError(
            f"{widget}: {shortened(name)} is a link that leads out of ComfyUI's {which} directory, to "
            f"{folder.resolve()}. Put the pictures themselves there."
        )
    return folder


def folder_name(name: str, widget: str) -> str:
    """A folder's name as typed, without the '/' that may end it."""
    return plain_name(name.strip().removesuffix("/"), widget, "ComfyUI's input, output or temp directory")


def output_name(prefix: str, widget: str = "filename_prefix") -> str:
    """The name of something new below the host's output directory. Raises ValueError for one that leads elsewhere."""
    return plain_name(prefix, widget, "ComfyUI's output directory")


def output_file(prefix: str, ending: str, widget: str = "filename_prefix") -> Path:
    """A file below the host's output directory; its folder is made. Raises ValueError when it cannot be there."""
    home = Path(folder_paths.get_output_directory())
    path = home / (output_name(prefix, widget) + ending)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{widget}: the folder {path.parent} cannot be made ({error.strerror}).") from error
    if path.is_symlink() or not is_inside(path.parent, home):
        raise ValueError(
            f"{widget}: {shortened(prefix)} leads out of ComfyUI's output directory by a link. Choose another name."
        )
    return path
