"""The weight files of LPIPS (models/lpips) and FID (models/fid): which there are, and where one comes from."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ....diffstyler_core.metrics.available import NotAvailable
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
    """The usual files, whether they are there or not, all others that are there, and none."""
    there = [name for name in folder_paths.get_filename_list(folder) if name.endswith(SUFFIXES)]
    usual = list(SOURCES[folder])
    return [*usual, *(name for name in there if name not in usual), NONE]


def weight_file(folder: str, name: str) -> Path:
    """The file of that name. Raises NotAvailable when it is missing or none, ValueError when it lies elsewhere."""
    widget = f"{folder}_weights"
    if name == NONE:
        raise NotAvailable(f"{widget} is '{NONE}'")
    found = model_file(folder, name, widget, SUFFIXES)
    if found is None:
        source = SOURCES[folder].get(name)
        fetch = f"Fetch it from {source} and put it there" if source else "Put it there"
        raise NotAvailable(f"there is no {shortened(name)} in models/{folder}. {fetch}")
    return found
