"""The files of models/deadiff: which there are, where one is, and what one holds."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import comfy.utils  # noqa: F401 - lets restricted unpickling read what Lightning notes beside the weights
import folder_paths
import torch
from safetensors import safe_open
from torch import Tensor

from ....diffstyler_core.image_prompt.deadiff import DEADiff
from ....diffstyler_core.image_prompt.layout import build, is_used
from ..not_installed import listed, plain
from ..paths import model_file, shortened

FOLDER = "deadiff"
OFFICIAL = ("deadiff_v1.ckpt",)
SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")
SOURCE = "https://huggingface.co/qth/DEADiff (deadiff_v1.ckpt), as its authors' code (bytedance/DEADiff) says"
WIDGET = "deadiff_name"


def register_deadiff_folder() -> None:
    """Makes models/deadiff a model folder of the host; folders of that name from other packs stay."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def deadiff_names() -> list[str]:
    """The official file, marked where it is not there, and all others that are."""
    return listed(OFFICIAL, [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(SUFFIXES)])


def deadiff_path(name: str) -> Path:
    """The file of that name in models/deadiff. Raises ValueError when it is missing or lies elsewhere."""
    name = plain(name)
    found = model_file(FOLDER, name, WIDGET, SUFFIXES)
    if found is None:
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        raise ValueError(
            f"{WIDGET}: there is no {shortened(name)} in {folders}. Fetch it from {SOURCE}, and put it there."
        )
    return found


def read_deadiff(path: Path) -> tuple[DEADiff, str]:
    """(the checkpoint's trained parts, what else it holds, in words). Nothing that the file holds is run.

    Raises ValueError for a file that is no such checkpoint.
    """
    try:
        state, unused = _read(path)
        return build(state, path.name), _unused(unused)
    except Exception as error:
        reason = (str(error).split("\n")[0] or type(error).__name__)[:400]
        raise ValueError(
            f"{WIDGET}: {path.name!r} cannot be read as a DEADiff checkpoint ({reason}). Fetch it from {SOURCE}."
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors that may be used, names of all others). The weights stay in the file until they are needed."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            state = {name: file.get_tensor(name) for name in names if is_used(name)}
    else:
        whole: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        whole = whole.get("state_dict", whole) if isinstance(whole, dict) else whole
        if not isinstance(whole, dict):
            raise ValueError(f"it holds a {type(whole).__name__}, not a state_dict")
        names = [str(name) for name in whole]
        state = {name: tensor for name, tensor in whole.items() if isinstance(name, str) and is_used(name)}
    return state, [name for name in names if name not in state]


def _unused(names: list[str]) -> str:
    parts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{part} ({count} tensors)" for part, count in sorted(parts.items()))
