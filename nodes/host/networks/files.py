"""The weight files of LPIPS (models/lpips) and FID (models/fid): which there are, and where one comes from."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ....diffstyler_core.metrics.pixels import NotAvailable
from ..inputs import require_text
from ..not_installed import first_installed, listed, plain

NONE = "none"
LPIPS, FID = "lpips", "fid"
SUFFIXES = (".pth", ".pt", ".safetensors")
SOURCES = {
    LPIPS: {
        "alexnet-owt-7be5be79.pth": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "vgg16-397923af.pth": "https://download.pytorch.org/models/vgg16-397923af.pth",
        "squeezenet1_1-b8a52dc0.pth": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    },
    FID: {
        "art_inception.pth": "https://huggingface.co/matthias-wright/art_inception",
        "weights-inception-2015-12-05-6726825d.pth": "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0",
    },
}
"""The usual files and where to get them; nothing is downloaded by the pack."""


def register_metric_folders() -> None:
    """Makes models/lpips and models/fid model folders of the host; folders of those names from other packs stay."""
    for folder in SOURCES:
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))


def weight_names(folder: str) -> list[str]:
    """The usual files, marked where they are not there, all others that are there, and none."""
    there = [name for name in folder_paths.get_filename_list(folder) if name.endswith(SUFFIXES)]
    return [*listed(list(SOURCES[folder]), there), NONE]


def default_weights(folder: str) -> str:
    """The first of those that are there; else the first of the usual ones, marked."""
    return first_installed(weight_names(folder)[:-1])


def require_listed(folder: str, name: str) -> None:
    """Raises ValueError for a name that the widget does not list, with or without its mark."""
    known = [plain(each) for each in weight_names(folder)]
    if plain(str(name)) not in known:
        raise ValueError(
            f"{folder}_weights: there is no {name!r:.100} in models/{folder}. Put it there, or choose one of "
            f"{', '.join(known)}."
        )


def weight_file(folder: str, name: str) -> Path:
    """The file of that name. Raises NotAvailable when it is missing or none, ValueError when it lies elsewhere."""
    name = plain(name)
    if name == NONE:
        raise NotAvailable(f"{folder}_weights is '{NONE}'")
    require_text(name, f"{folder}_weights")
    if os.path.isabs(name) or ".." in Path(name.replace("\\", "/")).parts or not name.endswith(SUFFIXES):
        raise ValueError(
            f"{folder}_weights must name a {', '.join(SUFFIXES)} file inside models/{folder}, got {name!r}. "
            "Choose one there."
        )
    homes = [Path(home) for home in folder_paths.get_folder_paths(folder)]
    found = next((home / name for home in homes if (home / name).is_file()), None)
    if found is None:
        source = SOURCES[folder].get(name)
        fetch = f"Fetch it from {source} and put it there" if source else "Put it there"
        raise NotAvailable(f"there is no {name!r} in models/{folder}. {fetch}")
    if not any(found.resolve().is_relative_to(home.resolve()) for home in homes):
        raise ValueError(
            f"{folder}_weights: {name!r} is a link that leads out of models/{folder}, to {found.resolve()}. "
            f"Put the file itself there, or name its folder in extra_model_paths.yaml as '{folder}'."
        )
    return found


def weight_stamp(folder: str, name: str | None) -> str:
    """Changes with the file: other weights, though the name is the same. Empty for none and for a missing one."""
    try:
        stat = weight_file(folder, name or NONE).stat()
    except (ValueError, OSError):  # executing says what is wrong
        return ""
    return f"{name}:{stat.st_mtime_ns}:{stat.st_size}"
