"""LoRA files: kohya names, safetensors with metadata and a hash of their content, written atomically."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

METADATA_KEY = "diffstyler"
DIGEST_KEY = "diffstyler_sha256"


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


def digest_of(state: Mapping[str, Tensor], record: str) -> str:
    """SHA-256 over the record (the JSON text under 'diffstyler') and every tensor's name, shape, format and bytes."""
    digest = hashlib.sha256(json.dumps(record).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_lora(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the file whole or not at all: beside its place first, then renamed. Raises OSError when it cannot.

    The metadata gets one entry more: the hash by which ``read_own`` knows the file again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial")
    entries = {**metadata, DIGEST_KEY: digest_of(state, metadata.get(METADATA_KEY, ""))}
    try:
        partial.write_bytes(safetensors.torch.save(dict(state), entries))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(state dict, the file's metadata). Raises OSError, SafetensorError, and ValueError for a damaged header.

    The bytes are read, not mapped: a file that is cut short while in use would kill the process.
    """
    data = path.read_bytes()
    state = safetensors.torch.load(data)  # refuses a header that is no JSON of its kind
    length = int.from_bytes(data[:8], "little")
    return state, json.loads(data[8 : 8 + length]).get("__metadata__") or {}


def read_own(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state dict, record) of a file that this pack wrote, when it is as it was written.

    The record holds the settings and 'losses', the loss of every step. Raises OSError when the file cannot be read
    and ValueError, which says why, for anything but an unchanged file of this pack with finite numbers in it.
    """
    try:
        state, metadata = load_lora(path)
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"it is no safetensors file ({error})") from error
    text = metadata.get(METADATA_KEY, "")
    if metadata.get(DIGEST_KEY) != digest_of(state, text):
        raise ValueError("its content is not what was written" if DIGEST_KEY in metadata else "it carries no hash")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its record is no JSON ({error})") from error
    losses = record.get("losses") if isinstance(record, dict) else None
    if not (isinstance(losses, list) and losses and all(_is_finite(loss) for loss in losses)):
        raise ValueError("its record holds no list of losses")
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise ValueError("its weights are not all finite")
    return state, record


def _is_finite(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < math.inf
