"""Which LoRAs run in the forward pass as they would in the weights, and what of a file is not applied.

Measured against the host's merged weights: LoRA and LoCon (with a middle factor on convolutions), LoHa and LoKr agree
to the fp32 floor in the shapes that are let through here. The host's forward forms of OFT, BOFT and GLoRA raise or
differ, and none of them knows dora_scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ....diffstyler_core.lora.schedule import Lora

PREFIX = "diffusion_model."
LARGEST_WEIGHT = 65504.0
"""The largest number of fp16, in which files are written."""
LARGEST_CHANGE = 1e4
"""Of one weight by up @ down: a model's own weights stay below ten, and fp16 overflows soon after."""
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


def checked_adapters(
    model: ModelPatcher, lora: Lora, name: str
) -> tuple[dict[str, WeightAdapterBase], tuple[str, ...]]:
    """(the host's adapter of each layer, lines on what is not applied). Keys are weights' paths without '.weight'.

    Raises ValueError that names the LoRA, the layer and the tensor for everything that would give NaN, fail in the
    middle of a run, or act otherwise than in the weights.
    """
    strange = next((key for key in lora if not isinstance(key, str)), None)
    if strange is not None:
        raise ValueError(f"{name}: its keys are names of layers, got {strange!r:.100}. Wire a LoRA.")
    state = comfy.lora_convert.convert_lora(dict(lora))
    own = {key: tensor for key, tensor in state.items() if not key.startswith(TEXT_ENCODER)}
    _require_tensors(own, name)
    _require_complete(own, name)
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    try:
        loaded = comfy.lora.load_lora(own, key_map, log_missing=False)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{name}: the host cannot make a LoRA of its keys ({type(error).__name__}: {error}). "
            "Train or fetch it again."
        ) from error
    if not loaded:
        sample = next(iter(lora), "no keys at all")
        raise ValueError(
            f"{name} matches 0 layers of this model: it was trained for another kind of model, or its keys "
            f"({len(lora)}, such as {sample!r}) are of an unknown form. Use a LoRA of this model's family."
        )
    adapters = {key.removesuffix(".weight"): adapter for key, adapter in loaded.items()}
    for key, adapter in adapters.items():
        _require_forward(adapter, key, name)
        _require_fit(adapter, tuple(comfy.utils.get_attr(model.model, f"{key}.weight").shape), key, name)
    used = frozenset().union(*(adapter.loaded_keys for adapter in adapters.values()))
    return adapters, _notes(len(state) - len(own), [key for key in own if key not in used], len(state), name)


def _notes(text: int, rest: list[str], total: int, name: str) -> tuple[str, ...]:
    lines = []
    if text:
        lines.append(
            f"note: {text} text-encoder keys of {name} are not applied here: send the CLIP through Load LoRA "
            "(Model and CLIP) with strength_model 0"
        )
    if rest:
        lines.append(
            f"note: {len(rest)} of {total} keys of {name} match no layer of this model and are not applied, such as "
            f"{rest[0]!r:.100}"
        )
    return tuple(lines)


def _require_tensors(state: Mapping[str, Any], name: str) -> None:
    """Every number is finite and of a size that a LoRA can have; each alpha is one number, and not 0."""
    for key, tensor in state.items():
        layer, part = _split(key)
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: {layer}: {part} is no tensor but {type(tensor).__name__}. Use another file.")
        if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided:
            kind = "without values" if tensor.is_meta else f"of {tensor.dtype}, {tensor.layout}"
            raise ValueError(f"{name}: {layer}: {part} is a tensor {kind}, not of plain numbers. Use another file.")
        if not tensor.numel():
            raise ValueError(f"{name}: {layer}: {part} is empty, {list(tensor.shape)}. Train or fetch it again.")
        if key.endswith(FACTORS) and tensor.ndim < 2:
            raise ValueError(
                f"{name}: {layer}: {part} must be a matrix or kernel, got {list(tensor.shape)}. "
                "Train or fetch it again."
            )
        if not tensor.is_floating_point():
            continue
        low, high = (value.item() for value in torch.aminmax(tensor.float() if tensor.itemsize < 2 else tensor))
        found = max(abs(low), abs(high))
        if not math.isfinite(low + high):
            raise ValueError(
                f"{name}: {layer}: {part} holds values that are not finite (NaN or infinity): the file is damaged or "
                "its training diverged. Train or fetch it again."
            )
        if found > LARGEST_WEIGHT:
            raise ValueError(
                f"{name}: {layer}: {part} holds values up to {found:.3g}, beyond {LARGEST_WEIGHT:g}: the file is "
                "damaged or its training diverged. Train or fetch it again."
            )
    for key, tensor in state.items():
        if key.endswith(".alpha") and (tensor.numel() != 1 or tensor.item() == 0.0):
            got = f"{tensor.item():g}" if tensor.numel() == 1 else f"{list(tensor.shape)}"
            raise ValueError(f"{name}: {_split(key)[0]}: alpha must be one number other than 0, got {got}.")


def _split(key: str) -> tuple[str, str]:
    """('layer <path>', what of it) of a key, for errors."""
    end = next((end for end in sorted(FACTORS, key=len, reverse=True) if key.endswith(end)), "")
    base, _, part = (key.removesuffix(end), "", end.strip("._")) if end else key.rpartition(".")
    return f"layer {base!r:.120}", part or "its tensor"


def _require_complete(state: Mapping[str, Any], name: str) -> None:
    """No half without its other half, and no DoRA."""
    for key in state:
        for ends in HALVES:
            end = next((end for end in ends if key.endswith(end)), "")
            lacking = [e for e in ends if end and key.removesuffix(end) + e not in state]
            if lacking:
                raise ValueError(
                    f"{name}: layer {key.removesuffix(end)!r:.120}: {end} without {', '.join(lacking)}: the file "
                    "is incomplete. Train or fetch it again."
                )
        if key.endswith(DORA):
            raise ValueError(
                f"{name} is a DoRA ({key!r:.120}), which needs the base weights: apply it with Load LoRA instead."
            )


def _require_forward(adapter: Any, key: str, name: str) -> None:
    if isinstance(adapter, WeightAdapterBase) and adapter.name in CHECKS and key.startswith(PREFIX):
        return
    kind = type(adapter).__name__ if isinstance(adapter, WeightAdapterBase) else f"'{adapter[0]}'"
    raise ValueError(
        f"{name} changes {key!r} in a way that cannot run in the forward pass ({kind}). "
        "Apply it with Load LoRA before this node instead."
    )


def _require_fit(adapter: WeightAdapterBase, weight: tuple[int, ...], key: str, name: str) -> None:
    CHECKS[adapter.name](list(adapter.weights), weight, f"{name}: layer {key!r}", name)


def _check_lora(parts: list[Any], weight: tuple[int, ...], where: str, name: str) -> None:
    """up [out, rank], down [rank, in], for convolutions also [out, rank, 1, 1] and [rank, in, h, w]."""
    up, down, alpha, mid, _, reshape = parts
    rank, inner = down.shape[0], math.prod(weight[1:])
    if up.shape[0] != weight[0] or (mid is None and math.prod(down.shape[1:]) != inner):
        raise ValueError(
            f"{name} does not fit this model: {where.partition('layer ')[2]} is {weight}, the LoRA was trained for "
            f"[{up.shape[0]}, {math.prod(down.shape[1:])}]. Use a LoRA of this model's family."
        )
    if math.prod(up.shape[1:]) != rank:
        raise ValueError(
            f"{where}: lora_up has rank {math.prod(up.shape[1:])} and lora_down {rank}: the halves are not of one "
            "LoRA. Train or fetch it again."
        )
    shapes = [tuple(part.shape) for part in (up, down, mid) if part is not None]
    flat = [(weight[0], rank), (rank, inner)]
    whole = [(weight[0], rank, 1, 1), (rank, *weight[1:])]
    middle = [(weight[0], rank, 1, 1), (rank, *weight[1:2], 1, 1), (rank, rank, *weight[2:])]
    fits = shapes in ([flat] if len(weight) == 2 else [flat, whole, [flat[0], whole[1]], [whole[0], flat[1]], middle])
    if not fits or len(weight) not in (2, 4) or (reshape is not None and reshape != list(weight)):
        raise _unfit(where, weight, [list(shape) for shape in shapes])
    scale = 1.0 if alpha is None else abs(alpha) / rank
    _require_change(_product(up.flatten(1), down.flatten(1)) * scale * (1.0 if mid is None else _largest(mid)), where)


def _check_loha(parts: list[Any], weight: tuple[int, ...], where: str, name: str) -> None:
    """Two products [out, rank] @ [rank, in], multiplied; with t1, t2 the tensor form for convolutions."""
    w1a, w1b, alpha, w2a, w2b, t1, t2, _ = parts
    out, inner = weight[0], math.prod(weight[1:])
    found = [tuple(part.shape) for part in (w1a, w1b, w2a, w2b, t1, t2) if part is not None]
    r1, r2 = w1b.shape[0], w2b.shape[0]
    if t1 is None:
        wanted = [(out, r1), (r1, inner), (out, r2), (r2, inner)]
    else:
        wanted = [(r1, out), (r1, weight[1]), (r2, out), (r2, weight[1]), (r1, r1, *weight[2:]), (r2, r2, *weight[2:])]
    if found != wanted or (t1 is not None and len(weight) != 4):
        raise _unfit(where, weight, [list(shape) for shape in found])
    change = [
        _product(a, b) if t1 is None else _product(a.T, b) * _largest(t) for a, b, t in ((w1a, w1b, t1), (w2a, w2b, t2))
    ]
    _require_change(change[0] * change[1] * (1.0 if alpha is None else abs(alpha) / r1), where)


def _check_lokr(parts: list[Any], weight: tuple[int, ...], where: str, name: str) -> None:
    """kron(w1, w2), either of them a product; for convolutions w2 whole, [c, d, h, w]."""
    w1, w2, alpha, w1a, w1b, w2a, w2b, t2, _ = parts
    found = [list(part.shape) for part in (w1, w2, w1a, w1b, w2a, w2b, t2) if part is not None]
    missing = (w1 is None and w1a is None) or (w2 is None and w2a is None)
    if missing or t2 is not None or (w2 is None and len(weight) == 4):
        raise _unfit(where, weight, found)
    pairs = [(a, b) for whole, a, b in ((w1, w1a, w1b), (w2, w2a, w2b)) if whole is None]
    ranks = {size for a, b in pairs for size in (a.shape[-1], b.shape[0])}
    if (alpha is not None and len(ranks) > 1) or any(
        a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] for a, b in pairs
    ):
        raise _unfit(where, weight, found)
    outer = tuple(w1.shape) if w1 is not None else (w1a.shape[0], w1b.shape[1])
    inner = tuple(w2.shape) if w2 is not None else (w2a.shape[0], w2b.shape[1])
    if len(outer) != 2 or len(inner) != len(weight) or (outer[0] * inner[0], outer[1] * inner[1], *inner[2:]) != weight:
        raise _unfit(where, weight, found)
    sizes = [
        _largest(whole) if whole is not None else _product(a, b) for whole, a, b in ((w1, w1a, w1b), (w2, w2a, w2b))
    ]
    _require_change(sizes[0] * sizes[1] * (abs(alpha) / min(ranks) if alpha is not None and ranks else 1.0), where)


CHECKS = {"lora": _check_lora, "loha": _check_loha, "lokr": _check_lokr}


def _unfit(where: str, weight: tuple[int, ...], shapes: list[Any]) -> ValueError:
    return ValueError(
        f"{where}: its tensors {shapes} cannot run in the forward pass of a layer of {list(weight)}. Apply it with "
        "Load LoRA before this node instead, or use a LoRA of this model's family."
    )


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item()


def _product(a: Tensor, b: Tensor) -> float:
    """At least the largest value of a @ b: no entry exceeds the longest row times the longest column."""
    rows = torch.linalg.vector_norm(a.float(), dim=1).max().item()
    return rows * torch.linalg.vector_norm(b.float(), dim=0).max().item()


def _require_change(largest: float, where: str) -> None:
    if not largest <= LARGEST_CHANGE:
        raise ValueError(
            f"{where}: it changes weights by up to {largest:.3g}, beyond {LARGEST_CHANGE:g}: the picture would be NaN. "
            "The file is damaged or its training diverged: train or fetch it again."
        )
