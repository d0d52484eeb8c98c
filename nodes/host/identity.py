"""What values, weights and files are told apart by: the same content, the same text; anything else, another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .paths import find_model_file


def identity(value: Any) -> str:
    """SHA-256 over the content of nested containers of tensors and plain values, e.g. a CONDITIONING."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"T{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"K{key}".encode())
            _feed(digest, value[key])
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        digest.update(f"L{len(value)}".encode())
        for item in value:
            _feed(digest, item)
    elif value is None or isinstance(value, (str, int, float, bool)):
        digest.update(json.dumps(value).encode())
    else:
        digest.update(type(value).__qualname__.encode())


def fingerprint(patcher: ModelPatcher, samples: int = 256) -> str:
    """Identity of a model's weights, patches included, from a spread of values of every tensor.

    Stable across restarts; reads a few hundred kB instead of the whole checkpoint.
    """
    digest = hashlib.sha256()
    for key, (weight, *patches) in sorted(patcher.get_key_patches().items()):
        digest.update(key.encode())
        _feed(digest, _spread(weight[0], samples))
        for strength, patch, *rest in patches:
            _feed(digest, [float(strength), *_numbers(getattr(patch, "weights", patch), samples), *map(str, rest[:2])])
        wrappers = patcher.weight_wrapper_patches.get(key, ())
        if wrappers:  # functions have no identity that outlives the process; what they make of the weight has
            _feed(digest, _spread(reduce(lambda made, wrapper: wrapper(made), wrappers, weight[0].clone()), samples))
    return digest.hexdigest()


def _numbers(value: Any, samples: int) -> list[Tensor | float]:
    """What a patch is made of: its tensors in samples, and plain numbers such as a LoRA's alpha."""
    if isinstance(value, Tensor):
        return [_spread(value, samples)]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in _numbers(item, samples)]
    return [float(value)] if isinstance(value, (int, float)) else []


def _spread(tensor: Tensor, samples: int) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // samples)].float()


def file_stamp(files: Iterable[Path]) -> str:
    """Changes with any of the files: other content, though the names are the same. Empty for no file."""
    stats = [(file, file.stat()) for file in files]
    return " ".join(f"{file}:{stat.st_mtime_ns}:{stat.st_size}" for file, stat in stats)


def model_stamp(kind: str, name: str | None) -> str:
    """The stamp of the file of that name in the host's folders of a kind of models; empty when there is none."""
    found = find_model_file(kind, name or "")
    return "" if found is None else file_stamp([found])
