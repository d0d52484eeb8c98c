"""Links to files and folders, on systems and disks that may not have them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .console import Failure


def link_folder(source: Path, link: Path) -> None:
    """Make `link` show `source`: a symbolic link, or a junction where Windows allows no symbolic link."""
    if link.exists() and os.path.samefile(source, link):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    _remove_link(link)
    try:
        os.symlink(source, link, target_is_directory=True)
    except OSError as error:
        if os.name != "nt":
            raise _cannot_link(source, link, error) from error
        _junction(source, link)


def link_file(source: Path, link: Path) -> None:
    """Make `link` the same file as `source`: symbolic link, hard link, or else a copy."""
    if not linked(source, link):
        shutil.copyfile(source, link)


def linked(source: Path, link: Path) -> bool:
    """Make `link` the same file as `source`, by a symbolic or hard link. -> whether this system and disk know one"""
    if link.exists() and os.path.samefile(source, link):
        return True
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    return any(_done(way, source.resolve(), link) for way in (os.symlink, os.link))


def _done(way: Callable[[Path, Path], None], source: Path, link: Path) -> bool:
    try:
        way(source, link)
    except OSError:  # not on this system or disk
        return False
    return True


def _junction(source: Path, link: Path) -> None:
    try:
        import _winapi

        windows: Any = _winapi
        windows.CreateJunction(str(source), str(link))
    except OSError as error:
        raise _cannot_link(source, link, error) from error


def _remove_link(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        try:
            link.rmdir()  # a junction, or an empty folder
        except OSError as error:
            raise Failure("link the pack", f"{link} is a folder of its own.", f"move {link} away.") from error


def _cannot_link(source: Path, link: Path, error: OSError) -> Failure:
    return Failure(
        "link the pack",
        f"{link} cannot be made a link to {source}: {error}.",
        "put the clone on a disk that knows links (NTFS, APFS, ext4, ...; not exFAT or a network share).",
    )
