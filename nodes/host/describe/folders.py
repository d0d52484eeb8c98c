"""The folders of models/vision_language: which there are, and what one must hold to be read as plain data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import folder_paths

from ..identity import file_stamp
from ..not_installed import listed, plain
from ..paths import is_inside, plain_name, shortened

FOLDER = "vision_language"
NONE = "none"
WIDGET = "model_folder"
SOURCES = {
    "llava-1.5-7b-hf": "https://huggingface.co/llava-hf/llava-1.5-7b-hf (14 GB)",
    "sharegpt4v-7b-hf": "https://huggingface.co/gokul-mbzuai/sharegpt4v-7b-hf (14 GB; ShareGPT4V-7B, converted)",
    "Qwen2.5-VL-3B-Instruct": "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct (8 GB)",
    "llava-onevision-qwen2-0.5b-ov-hf": "https://huggingface.co/llava-hf/llava-onevision-qwen2-0.5b-ov-hf (2 GB)",
    "SmolVLM-500M-Instruct": "https://huggingface.co/HuggingFaceTB/SmolVLM-500M-Instruct (1 GB)",
}
"""Models in transformers' own layout with safetensors, and where to get them; nothing is downloaded by the pack."""


def register_vision_language_folder() -> None:
    """Makes models/vision_language a model folder of the host; folders of that name from other packs stay."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def model_folders() -> list[str]:
    """The usual models, marked where they are not there, all others that are, and none."""
    return [*listed(list(SOURCES), _found()), NONE]


def default_folder() -> str:
    """The first that is there; else none."""
    return next(iter(_found()), NONE)


def _found() -> dict[str, Path]:
    folders = [Path(home) for home in folder_paths.get_folder_paths(FOLDER)]
    found: dict[str, Path] = {}
    for config in (path for home in folders for path in sorted(home.glob("*/config.json"))):
        found.setdefault(config.parent.name, config.parent)
    return found


def folder_stamp(name: str | None) -> str:
    """Changes with any of a folder's files; empty for none and for one that is not there."""
    folder = _found().get(plain(name or NONE))
    return "" if folder is None else file_stamp(sorted(path for path in folder.iterdir() if path.is_file()))


def checked_folder(name: str) -> Path:
    """The folder of that name, of which only plain data will be read.

    Raises ValueError when it is missing, leads elsewhere by a link, holds no safetensors, is an adapter's, or needs
    code of its own.
    """
    name = plain_name(plain(name), WIDGET, f"models/{FOLDER}")
    folder = _found().get(name)
    if folder is None:
        homes = " or ".join(folder_paths.get_folder_paths(FOLDER))
        source = f"{name} from {SOURCES[name]}" if name in SOURCES else f"e.g. {'; or '.join(SOURCES.values())}"
        raise ValueError(
            f"{WIDGET}: there is no model {shortened(name)} in {homes}. Fetch {source}, all its files, into a folder "
            "of that name there, or wire a CLIP that takes pictures instead."
        )
    _require_inside(folder)
    _require_data(folder)
    return folder


def _require_inside(folder: Path) -> None:
    for path in (folder, *sorted(folder.iterdir())):
        if not is_inside(path, folder.parent):
            raise ValueError(
                f"{WIDGET}: {shortened(path.name)} is a link that leads out of models/{FOLDER}, to {path.resolve()}. "
                f"Put the files themselves there, or name their folder in extra_model_paths.yaml as '{FOLDER}'."
            )


def _require_data(folder: Path) -> None:
    config = read_config(folder)
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{WIDGET}: {folder.name!r} holds an adapter, which names another model. Merge it into that model first."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = ", ".join(path.name for path in sorted(folder.glob("*.bin")))
        raise ValueError(
            f"{WIDGET}: {folder.name!r} has no .safetensors file{' but ' + pickles if pickles else ''}; others can "
            "hold programs and are not read. Get the model's safetensors."
        )
    kind = config.get("model_type")
    if kind == "share4v" or (isinstance(kind, str) and "llava" in kind and "vision_config" not in config):
        raise ValueError(
            f"{WIDGET}: {folder.name!r} is as LLaVA's own code saves it (model_type {kind!r}), not as transformers "
            f"does. Fetch the converted one: {SOURCES['llava-1.5-7b-hf']} or {SOURCES['sharegpt4v-7b-hf']}."
        )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Raises ValueError when it is no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{WIDGET}: config.json of {folder.name!r} cannot be read ({error}). Fetch it anew."
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{WIDGET}: config.json of {folder.name!r} holds no settings. Fetch it anew.")
    return config
