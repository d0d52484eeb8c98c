"""What a LoRA's keys say: which layer and tensor each is of, what comes together, and what the host makes of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import comfy.lora
from comfy.model_patcher import ModelPatcher

PREFIX = "diffusion_model."
TEXT_ENCODER = ("lora_te", "lora_prior_te", "text_encoder", "clip_l.", "clip_g.", "clip_h.", "t5xxl.")
HALVES = (
    (".lora_up.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora_B", ".lora_A"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b"),
    (".hada_t1", ".hada_t2"),
    (".lokr_w1_a", ".lokr_w1_b"),
    (".lokr_w2_a", ".lokr_w2_b"),
    (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"),
)
"""Endings of keys that come together."""
FACTORS = (*(end for ends in HALVES for end in ends), ".lora_mid.weight", ".lokr_w1", ".lokr_w2", ".lokr_t2")
"""Endings of keys of matrices and kernels."""
DORA = (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")


def of_unet(state: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors that are not a text encoder's."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(TEXT_ENCODER)}


def is_factor(key: str) -> bool:
    """Whether a key is of a matrix or kernel, as against an alpha or a scale."""
    return key.endswith(FACTORS)


def layer_and_part(key: str) -> tuple[str, str]:
    """('layer <path>', what of it) of a key, for errors."""
    end = next((end for end in sorted(FACTORS, key=len, reverse=True) if key.endswith(end)), "")
    base, _, part = (key.removesuffix(end), "", end.strip("._")) if end else key.rpartition(".")
    return f"layer {base!r:.120}", part or "its tensor"


def require_complete(keys: Collection[str], name: str) -> None:
    """Raises ValueError for a half without its other half, and for a DoRA."""
    for key in keys:
        for ends in HALVES:
            end = next((end for end in ends if key.endswith(end)), "")
            lacking = [other for other in ends if end and key.removesuffix(end) + other not in keys]
            if lacking:
                raise ValueError(
                    f"{name}: layer {key.removesuffix(end)!r:.120}: {end} without {', '.join(lacking)}: the file "
                    "is incomplete. Train or fetch it again."
                )
        if key.endswith(DORA):
            raise ValueError(
                f"{name} is a DoRA ({key!r:.120}), which needs the base weights: apply it with Load LoRA instead."
            )


def adapters_of(model: ModelPatcher, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the host makes of the keys that match layers of this model, by the weight's path without '.weight'.

    Raises ValueError when it can make nothing of them.
    """
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    try:
        loaded = comfy.lora.load_lora(dict(state), key_map, log_missing=False)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{name}: the host cannot make a LoRA of its keys ({type(error).__name__}: {error}). "
            "Train or fetch it again."
        ) from error
    return {key.removesuffix(".weight"): adapter for key, adapter in loaded.items()}


def notes_on_keys(text: int, unmatched: list[str], total: int, name: str) -> tuple[str, ...]:
    """Lines on what of a LoRA is not applied: so many text encoder's keys, and those that match no layer."""
    lines = []
    if text:
        lines.append(
            f"note: {text} text-encoder keys of {name} are not applied here: send the CLIP through Load LoRA "
            "(Model and CLIP) with strength_model 0"
        )
    if unmatched:
        lines.append(
            f"note: {len(unmatched)} of {total} keys of {name} match no layer of this model and are not applied, such "
            f"as {unmatched[0]!r:.100}"
        )
    return tuple(lines)
