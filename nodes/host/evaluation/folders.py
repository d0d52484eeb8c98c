"""Folders and files that widgets name: kept inside the host's own directories."""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths

PLAIN = re.compile(r"[^\x00-\x1f<>:\"|?*\\/]+")


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


def folder_of(name: str, widget: str) -> Path:
    """A folder below the host's input, output or temp directory. Raises ValueError for any other, and a missing one."""
    homes = host_folders()
    first, *rest = plain_parts(name, widget)
    if first not in homes:
        raise ValueError(
            f"{widget}: a folder starts with input, output or temp (ComfyUI's own directories), got {name!r}. "
            "Write e.g. output/results, and put the pictures there."
        )
    folder = homes[first].joinpath(*rest)
    if not folder.is_dir():
        raise ValueError(f"{widget}: there is no folder {name!r} (looked for {folder}). Check its name.")
    if not folder.resolve().is_relative_to(homes[first].resolve()):
        raise ValueError(
            f"{widget}: {name!r} is a link that leads out of ComfyUI's {first} directory, to {folder.resolve()}. "
            "Put the pictures themselves there."
        )
    return folder


def output_file(prefix: str, ending: str) -> Path:
    """A file below the host's output directory; its folder is made. Raises ValueError when it cannot be there."""
    home = host_folders()["output"]
    parts = plain_parts(prefix, "filename_prefix")
    path = home.joinpath(*parts[:-1], parts[-1] + ending)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"filename_prefix: the folder {path.parent} cannot be made ({error.strerror}).") from error
    if path.is_symlink() or not path.parent.resolve().is_relative_to(home.resolve()):
        raise ValueError(
            f"filename_prefix: {prefix!r} leads out of ComfyUI's output directory by a link. Choose another name."
        )
    return path
