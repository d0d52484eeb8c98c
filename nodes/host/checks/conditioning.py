"""CONDITIONINGs whose embeddings fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.model_base
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .numbers import require_finite, require_within
from .timesteps import range_of

Conditioning = list[list[Any]]
"""A CONDITIONING as the host's sockets carry it: [[embedding, options], ...]."""

LARGEST_EMBEDDING = 65504.0
"""The largest number of fp16; text encoders stay below a thousand."""
PARTIAL = ("area", "mask")


def one_conditioning(conditioning: list[Any], name: str) -> list[Any]:
    """A CONDITIONING with exactly one entry."""
    if not isinstance(conditioning, (list, tuple)) or len(conditioning) != 1:
        raise ValueError(
            f"{name}: one prompt is expected, got {_count(conditioning)}. "
            "Wire a single CLIP Text Encode, without Conditioning Combine."
        )
    return conditioning


def _count(conditioning: Any) -> str:
    return f"{len(conditioning)} combined ones" if isinstance(conditioning, (list, tuple)) else f"{conditioning!r:.40}"


def require_conditioning(
    conditioning: Any, model: ModelPatcher, name: str, one: bool = False, whose: str = "the content's"
) -> Conditioning:
    """A CONDITIONING whose embeddings fit the model's UNet; [tensor [1, tokens, width], options] each, all finite.

    one: exactly one entry, for the whole picture and the whole run, as the content's own prompt must be: where an
    area, a mask or a timestep range leaves something out, the host predicts zeros. whose: prompt it is, in errors.
    Raises ValueError that names the input, and the entry where there are several.
    """
    if one:
        one_conditioning(conditioning, name)
    if not isinstance(conditioning, (list, tuple)) or not conditioning:
        raise ValueError(f"{name}: a prompt is expected, got {conditioning!r:.40}. Wire CLIP Text Encode.")
    for number, entry in enumerate(conditioning, 1):
        _require_entry(entry, model, name if len(conditioning) == 1 else f"{name}, prompt {number}")
        if one:
            _require_whole(entry[1], name, whose)
    return conditioning  # type: ignore[return-value]


def require_no_area(conditioning: Conditioning, name: str) -> None:
    """Raises ValueError for a prompt in an area: the host evaluates a crop there, and features are of the whole."""
    for number, (_, options) in enumerate(conditioning, 1):
        if options.get("area") is not None or (options.get("mask") is not None and options.get("set_area_to_bounds")):
            raise ValueError(
                f"{name}, prompt {number}: it acts in an area, of which the host evaluates a crop, and what is "
                "injected is of the whole picture. Use Conditioning (Set Mask) with set_cond_area 'default', or "
                "Regional Style."
            )


def _require_entry(entry: Any, model: ModelPatcher, name: str) -> None:
    if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], dict)):
        raise ValueError(
            f"{name}: [embedding, options] is expected, got {type(entry).__name__}. Wire CLIP Text Encode."
        )
    embedding, options = entry
    width = model.model.model_config.unet_config.get("context_dim")
    if not isinstance(embedding, Tensor) or embedding.ndim != 3 or not embedding.is_floating_point():
        shape = list(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
        raise ValueError(f"{name}: an embedding [1, tokens, width] is expected, got {shape}. Wire CLIP Text Encode.")
    if embedding.shape[0] != 1 or embedding.shape[1] == 0:
        raise ValueError(
            f"{name}: one prompt's embedding [1, tokens, width] is expected, got {list(embedding.shape)}. "
            "Wire one CLIP Text Encode instead of a batch."
        )
    if isinstance(width, int) and embedding.shape[2] != width:
        raise ValueError(
            f"{name}: this model takes embeddings of width {width}, got {embedding.shape[2]}: the text encoder belongs "
            "to another kind of model. Encode the prompt with this checkpoint's own CLIP."
        )
    for part, tensor in [("", embedding), *_tensors(options)]:
        require_finite(tensor, f"{name}{part}")
    require_within(embedding, name, LARGEST_EMBEDDING, "no text encoder gives that: check the node that made it")
    _require_pooled(options.get("pooled_output"), model, name)


def _tensors(options: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for key, value in options.items():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, Tensor) and part.is_floating_point():
                yield f", {key}", part


def _require_pooled(pooled: Any, model: ModelPatcher, name: str) -> None:
    """SDXL takes the prompt's pooled embedding beside what it makes of the picture's size, 256 values a number."""
    numbers = {comfy.model_base.SDXL: 6, comfy.model_base.SDXLRefiner: 5}.get(type(model.model))
    if numbers is None:
        return
    width = model.model.adm_channels - 256 * numbers
    shape = list(pooled.shape) if isinstance(pooled, Tensor) else None
    if shape != [1, width]:
        raise ValueError(
            f"{name}: this model takes a pooled embedding [1, {width}] with each prompt, got {shape or 'none'}. "
            "Encode the prompt with this checkpoint's own CLIP."
        )


def _require_whole(options: dict[str, Any], name: str, whose: str) -> None:
    found = [key for key in PARTIAL if options.get(key) is not None]
    if found:
        raise ValueError(
            f"{name}: {whose} prompt acts on the whole picture, got one with {' and '.join(found)}. "
            "Wire CLIP Text Encode without Conditioning (Set Area) or (Set Mask)."
        )
    start, end = range_of(options)
    if start > 0.0 or end < 1.0:
        raise ValueError(
            f"{name}: {whose} prompt acts in the whole run, got one for {100 * start:g} % to {100 * end:g} % of "
            "it. Wire CLIP Text Encode without ConditioningSetTimestepRange."
        )
