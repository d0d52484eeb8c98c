"""LoRA files: kohya names, safetensors with metadata, written atomically."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

METADATA_KEY = "diffstyler"


class LowRank(NamedTuple):
    """One module's LoRA: down [rank, in], up [out, rank]; the weight change is up @ down * alpha / rank."""

    down: Tensor
    up: Tensor


def kohya_state(lora: Mapping[str, LowRank], names: Mapping[str, str], alpha: float) -> dict[str, Tensor]:
    """State dict as kohya writes it, which the host's LoraLoader and most tools read.

    lora: per module path of the UNet. names: module path -> diffusers' path of the same module.
    Raises ValueError for a module that has no diffusers name.
    """
    state: dict[str, Tensor] = {}
    for path, low_rank in lora.items():
        if path not in names:
            raise ValueError(f"the module {path!r} has no diffusers name, so its LoRA could not be loaded elsewhere.")
        key = "lora_unet_" + names[path].replace(".", "_")
        state[f"{key}.lora_down.weight"] = low_rank.down.detach().float().cpu().contiguous().clone()
        state[f"{key}.lora_up.weight"] = low_rank.up.detach().float().cpu().contiguous().clone()
        state[f"{key}.alpha"] = torch.tensor(float(alpha))
    return state


def kohya_metadata(settings: Mapping[str, Any], losses: list[float]) -> dict[str, str]:
    """Metadata of a file: kohya's names for what has one, everything as JSON under 'diffstyler'."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(settings["rank"]),
        "ss_network_alpha": str(settings["alpha"]),
        "ss_learning_rate": str(settings["learning_rate"]),
        "ss_max_train_steps": str(settings["steps"]),
        "ss_seed": str(settings["seed"]),
        "ss_resolution": str(settings["resolution"]),
        "ss_base_model_version": str(settings["base_model"]),
        METADATA_KEY: json.dumps({**settings, "losses": [round(x, 6) for x in losses]}, sort_keys=True),
    }


def save_lora(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the file whole or not at all: beside its place first, then renamed. Raises OSError when it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(safetensors.torch.save(dict(state), dict(metadata)))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state dict, what this pack wrote beside it; empty for other tools' files). Raises OSError, SafetensorError."""
    with safetensors.safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata() or {}
    return state, json.loads(metadata.get(METADATA_KEY, "{}"))
