"""The files of style embeddings: their identity, their metadata, and the name that prompts have for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ....diffstyler_core.lora.file import METADATA_KEY
from ..identity import fingerprint
from .encoder import widths_of
from .placeholder import Prompt
from .request import request_of


def embedding_request(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    pictures: Tensor,
    prompt: Prompt,
    settings: dict[str, Any],
    clip_vision: Any,
) -> str:
    """Hash of everything that determines the vectors."""
    text = {
        "trained": "embedding",
        "clip": fingerprint(clip.patcher),
        "layer": clip.layer_idx,
        "tokens": prompt.described(),
        "clip_vision": None if clip_vision is None else fingerprint(clip_vision.patcher),
    }
    return request_of(model, vae, pictures, text, settings)


def embedding_metadata(settings: Mapping[str, Any], losses: list[float]) -> dict[str, str]:
    """Metadata of a file: the settings and the losses as JSON."""
    return {METADATA_KEY: json.dumps({**settings, "losses": [round(x, 6) for x in losses]}, sort_keys=True)}


def embedding_size(clip: CLIP, vectors: int) -> int:
    """Bytes that the file will need at most."""
    return 4 * vectors * sum(widths_of(clip).values()) + 1_000_000


def prompt_name(file: str) -> str:
    """'embedding:NAME' of a file below models/embeddings; '' for none."""
    return f"embedding:{PurePath(file).with_suffix('').as_posix()}" if file else ""


def require_vectors(state: Mapping[str, Tensor], clip: CLIP, vectors: int) -> None:
    """Raises ValueError when a file's vectors are not those of the CLIP's encoders."""
    wanted = {name: (vectors, width) for name, width in widths_of(clip).items()}
    if {name: tuple(value.shape) for name, value in state.items()} != wanted:
        raise ValueError(f"filename_prefix: the embedding that was kept has other vectors than {wanted}. Delete it.")
