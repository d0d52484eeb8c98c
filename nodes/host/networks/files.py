"""The weight files of LPIPS (models/lpips) and FID (models/fid): which there are, and where one comes from."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ....diffstyler_core.metrics.available import NotAvailable
from ..not_installed import first_installed, listed, plain
from ..paths import model_file, shortened

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
    name, widget = plain(name), f"{folder}_weights"
    if name == NONE:
        raise NotAvailable(f"{widget} is '{NONE}'")
    found = model_file(folder, name, widget, SUFFIXES)
    if found is None:
        source = SOURCES[folder].get(name)
        fetch = f"Fetch it from {source} and put it there" if source else "Put it there"
        raise NotAvailable(f"there is no {shortened(name)} in models/{folder}. {fetch}")
    return found
