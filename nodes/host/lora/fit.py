"""Whether a LoRA's matrices fit a layer, family by family: in the forward pass, or where the weights are merged.

Every one of them changes the layer by a sane amount.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

LARGEST_CHANGE = 1e4
"""Of one weight by up @ down: a model's own weights stay below ten, and fp16 overflows soon after."""

Form = list[tuple[int, ...]]
"""Shapes of a LoRA's matrices, in their order."""


class Layer(NamedTuple):
    """A layer of the model that a LoRA changes: what errors call the LoRA, the layer's path, its weight's shape."""

    lora: str
    path: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.lora}: layer {self.path!r}"


class NotInForwardError(ValueError):
    """Of a family that runs in the forward pass, in shapes that do not: merged weights may take it."""


def require_fit(adapter: WeightAdapterBase, layer: Layer) -> None:
    """Raises ValueError for an adapter of a family that runs in the forward pass, where it would fail or act otherwise
    than in the weights. ``NotInForwardError``: its shapes may still fit the weights.
    """
    FAMILIES[adapter.name](list(adapter.weights), layer)


def _fit_lora(parts: list[Any], layer: Layer) -> None:
    """up [out, rank], down [rank, in], for convolutions also [out, rank, 1, 1] and [rank, in, h, w]."""
    up, down, alpha, mid, _, reshape = parts
    weight, rank = layer.shape, down.shape[0]
    if up.shape[0] != weight[0] or (mid is None and math.prod(down.shape[1:]) != math.prod(weight[1:])):
        raise ValueError(
            f"{layer.lora} does not fit this model: {layer.path!r} is {weight}, the LoRA was trained for "
            f"[{up.shape[0]}, {math.prod(down.shape[1:])}]. Use a LoRA of this model's family."
        )
    if math.prod(up.shape[1:]) != rank:
        raise ValueError(
            f"{layer}: lora_up has rank {math.prod(up.shape[1:])} and lora_down {rank}: the halves are not of one "
            "LoRA. Train or fetch it again."
        )
    shapes = [tuple(part.shape) for part in (up, down, mid) if part is not None]
    if shapes not in _lora_forms(weight, rank) or (reshape is not None and reshape != list(weight)):
        raise _unfit(layer, [list(shape) for shape in shapes])
    scale = 1.0 if alpha is None else abs(alpha) / rank
    require_change(product(up.flatten(1), down.flatten(1)) * scale * (1.0 if mid is None else largest(mid)), layer)


def _lora_forms(weight: tuple[int, ...], rank: int) -> list[Form]:
    """The shapes of up, down and a middle factor that run in the forward pass of a layer."""
    flat: Form = [(weight[0], rank), (rank, math.prod(weight[1:]))]
    if len(weight) == 2:
        return [flat]
    if len(weight) != 4:
        return []
    whole: Form = [(weight[0], rank, 1, 1), (rank, *weight[1:])]
    middle: Form = [whole[0], (rank, weight[1], 1, 1), (rank, rank, *weight[2:])]
    return [flat, whole, [flat[0], whole[1]], [whole[0], flat[1]], middle]


def _fit_loha(parts: list[Any], layer: Layer) -> None:
    """Two products [out, rank] @ [rank, in], multiplied; with t1, t2 the tensor form for convolutions."""
    w1a, w1b, alpha, w2a, w2b, t1, t2, _ = parts
    weight = layer.shape
    out, inner = weight[0], math.prod(weight[1:])
    found = [tuple(part.shape) for part in (w1a, w1b, w2a, w2b, t1, t2) if part is not None]
    r1, r2 = w1b.shape[0], w2b.shape[0]
    if t1 is None:
        wanted = [(out, r1), (r1, inner), (out, r2), (r2, inner)]
    else:
        wanted = [(r1, out), (r1, weight[1]), (r2, out), (r2, weight[1]), (r1, r1, *weight[2:]), (r2, r2, *weight[2:])]
    if found != wanted or (t1 is not None and len(weight) != 4):
        raise _unfit(layer, [list(shape) for shape in found])
    change = [
        product(a, b) if t1 is None else product(a.T, b) * largest(t) for a, b, t in ((w1a, w1b, t1), (w2a, w2b, t2))
    ]
    require_change(change[0] * change[1] * (1.0 if alpha is None else abs(alpha) / r1), layer)


def _fit_lokr(parts: list[Any], layer: Layer) -> None:
    """kron(w1, w2), either of them a product; for convolutions w2 whole, [c, d, h, w]."""
    w1, w2, alpha, w1a, w1b, w2a, w2b, t2, _ = parts
    weight = layer.shape
    found = [list(part.shape) for part in (w1, w2, w1a, w1b, w2a, w2b, t2) if part is not None]
    missing = (w1 is None and w1a is None) or (w2 is None and w2a is None)
    if missing or t2 is not None or (w2 is None and len(weight) == 4):
        raise _unfit(layer, found)
    pairs = [(a, b) for whole, a, b in ((w1, w1a, w1b), (w2, w2a, w2b)) if whole is None]
    ranks = {size for a, b in pairs for size in (a.shape[-1], b.shape[0])}
    if (alpha is not None and len(ranks) > 1) or any(
        a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] for a, b in pairs
    ):
        raise _unfit(layer, found)
    outer = tuple(w1.shape) if w1 is not None else (w1a.shape[0], w1b.shape[1])
    inner = tuple(w2.shape) if w2 is not None else (w2a.shape[0], w2b.shape[1])
    if len(outer) != 2 or len(inner) != len(weight) or (outer[0] * inner[0], outer[1] * inner[1], *inner[2:]) != weight:
        raise _unfit(layer, found)
    sizes = [largest(whole) if whole is not None else product(a, b) for whole, a, b in ((w1, w1a, w1b), (w2, w2a, w2b))]
    require_change(sizes[0] * sizes[1] * (abs(alpha) / min(ranks) if alpha is not None and ranks else 1.0), layer)


FAMILIES: dict[str, Callable[[list[Any], Layer], None]] = {"lora": _fit_lora, "loha": _fit_loha, "lokr": _fit_lokr}
"""By the host's names: those that run in the forward pass as they would in the weights."""


def _unfit(layer: Layer, shapes: list[Any]) -> NotInForwardError:
    return NotInForwardError(
        f"{layer}: its tensors {shapes} do not fit a layer of {list(layer.shape)}. Use a LoRA of this model's family, "
        "or fetch it again."
    )


def largest(tensor: Tensor) -> float:
    return tensor.abs().max().item()


def product(a: Tensor, b: Tensor) -> float:
    """At least the largest value of a @ b: no entry exceeds the longest row times the longest column."""
    rows = torch.linalg.vector_norm(a.float(), dim=1).max().item()
    return rows * torch.linalg.vector_norm(b.float(), dim=0).max().item()


def require_change(largest: float, layer: Layer) -> None:
    if not largest <= LARGEST_CHANGE:
        raise ValueError(
            f"{layer}: it changes weights by up to {largest:.3g}, beyond {LARGEST_CHANGE:g}: the picture would be NaN. "
            "The file is damaged or its training diverged: train or fetch it again."
        )
