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
OFT = ".oft_blocks"
FACTORS = (*(end for ends in HALVES for end in ends), ".lora_mid.weight", ".lokr_w1", ".lokr_w2", ".lokr_t2", OFT)
"""Endings of keys of matrices and kernels."""
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
"""Endings of a DoRA's keys that the host does not know."""
WHOLE = (".diff", ".set_weight", ".w_norm", ".diff_b", ".b_norm")
"""Endings of keys of whole parameters, or what is added to one."""
FORMS = (*(ends[0] for ends in HALVES[:8]), ".lokr_w1", ".lokr_w1_a", ".a1.weight", OFT, *WHOLE[:3])
"""Endings of keys by which the host knows a form of a weight's change; of several it takes the last."""


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
    """Raises ValueError for a half without its other half, and for a DoRA in a form that the host takes for a LoRA."""
    for key in keys:
        for ends in HALVES:
            end = next((end for end in ends if key.endswith(end)), "")
            lacking = [other for other in ends if end and key.removesuffix(end) + other not in keys]
            if lacking:
                raise ValueError(
                    f"{name}: layer {key.removesuffix(end)!r:.120}: {end} without {', '.join(lacking)}: the file "
                    "is incomplete. Train or fetch it again."
                )
        if key.endswith(MAGNITUDES):
            raise ValueError(
                f"{name} is a DoRA in peft's form ({key!r:.120}), whose magnitudes the host does not read: "
                "the LoRA alone would be another picture. Convert it to the form with dora_scale."
            )


def patches_of(model: ModelPatcher, state: Mapping[str, Any], name: str) -> tuple[dict[str, Any], frozenset[str]]:
    """(what the host makes of the keys that match parameters of this model, by the parameter's path; those keys).

    Raises ValueError when it can make nothing of them, or would take one of several forms of a layer's change.
    """
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    _require_one_form(key_map, state, name)
    try:
        loaded = comfy.lora.load_lora(dict(state), key_map, log_missing=False)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{name}: the host cannot make a LoRA of its keys ({type(error).__name__}: {error}). "
            "Train or fetch it again."
        ) from error
    present = model.model.state_dict().keys()
    patches = {key: patch for key, patch in loaded.items() if key in present}
    named = {base + end for base, key in key_map.items() for end in WHOLE if _target(key, end) in patches}
    adapters = [patch.loaded_keys for patch in patches.values() if hasattr(patch, "loaded_keys")]
    whole = named & state.keys()
    factors = frozenset().union(*adapters) - {key for key in state if key.endswith(WHOLE)}
    return patches, factors | whole


def _target(key: str, end: str) -> str:
    """The parameter that a key with this ending changes, of a layer whose weight is ``key``."""
    return key.removesuffix(".weight") + ".bias" if end in (".diff_b", ".b_norm") else key


def _require_one_form(key_map: Mapping[str, str], state: Mapping[str, Any], name: str) -> None:
    found: dict[str, str] = {}
    for base, target in key_map.items():
        for end in FORMS:
            if base + end not in state:
                continue
            if target in found:
                raise ValueError(
                    f"{name}: layer {target!r:.120} is changed twice, by {found[target]!r:.120} and "
                    f"{base + end!r:.120}, of which the host would take one. Remove one of them from the file."
                )
            found[target] = base + end


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
