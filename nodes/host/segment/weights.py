"""The files of models/fastsam: which there are, and where one is."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..checks.text import require_text
from ..not_installed import listed, plain
from ..paths import model_file, shortened

FOLDER = "fastsam"
OFFICIAL = ("FastSAM-s.pt", "FastSAM-x.pt")
SOURCE = "https://github.com/ultralytics/assets/releases (FastSAM-s.pt 23 MB, FastSAM-x.pt 138 MB)"


def register_fastsam_folder() -> None:
    """Makes models/fastsam a model folder of the host; folders of that name from other packs stay."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def weights_names() -> list[str]:
    """The official files, marked where they are not there, and all others that are."""
    return listed(OFFICIAL, [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".pt")])


def weights_path(name: str) -> Path:
    """The file of that name in models/fastsam. Raises ValueError when it is missing or lies elsewhere."""
    name = plain(require_text(name, "fastsam_name"))
    found = model_file(FOLDER, name, "fastsam_name", (".pt",))
    if found is None:
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        raise ValueError(
            f"fastsam_name: there is no {shortened(name)} in {folders}. "
            f"Fetch it from {SOURCE} and put it there, or wire any other MASK instead of this node."
        )
    return found
