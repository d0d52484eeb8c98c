"""Whether a patch fits a parameter where the host merges it into the weights, family by family.

The host logs a patch that fails, and goes on with the weight as it was. So each family's shapes are held against its
equations here, and one merge of random numbers of the same shapes shows that the host computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import comfy.lora
import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from .fit import Layer, NotInForwardError, largest, product, require_change, require_fit

DORA_AT = {"lora": 4, "loha": 7, "lokr": 8, "glora": 5, "oft": 3, "boft": 3}
"""Where a family's tensors, as the host holds them, have dora_scale."""


class Probes:
    """The merges of random numbers that a LoRA's patches asked for: one for each family and set of shapes."""

    def __init__(self) -> None:
        self._known: dict[Any, bool] = {}

    def runs(self, adapter: WeightAdapterBase, shape: tuple[int, ...]) -> bool:
        """Whether the host gives another weight of the same shape."""
        parts = [tuple(part.shape) if isinstance(part, Tensor) else part for part in adapter.weights]
        key = (adapter.name, shape, str(parts))
        if key not in self._known:
            self._known[key] = _changes(adapter, shape)
        return self._known[key]


def _changes(adapter: WeightAdapterBase, shape: tuple[int, ...]) -> bool:
    parts = [_probe(part) for part in adapter.weights]
    weight = torch.rand(shape)
    probe = type(adapter)(set(), tuple(parts))
    try:
        out = comfy.lora.calculate_weight([(1.0, probe, 1.0, None, None)], weight.clone(), "probe")
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return out.shape == weight.shape and not torch.equal(out, weight)


def _probe(part: Any) -> Any:
    if isinstance(part, Tensor):
        return torch.rand(part.shape)
    return 1.0 if isinstance(part, float | int) else part


def require_merge(patch: Any, layer: Layer, probes: Probes) -> Any:
    """The patch as it is to be merged. Raises ValueError where the host would fail, or make something else of it."""
    if not isinstance(patch, WeightAdapterBase):
        return _fitting_tensor(patch, layer)
    if patch.name not in DORA_AT:
        raise ValueError(f"{layer}: {type(patch).__name__} is of a family that is not known here. Use another LoRA.")
    if patch.name == "boft" and patch.weights[2] is None:  # no constraint; the host's merge wants it said
        patch = type(patch)(patch.loaded_keys, (*patch.weights[:2], 0.0, *patch.weights[3:]))
    if patch.name in FAMILIES:
        FAMILIES[patch.name](list(patch.weights), layer)
    else:
        _require_additive(patch, layer)
    _require_magnitudes(patch, layer)
    if not probes.runs(patch, layer.shape):
        raise _unfit(patch, layer)
    return patch


def _fitting_tensor(patch: Any, layer: Layer) -> Any:
    """A difference of the parameter, or another in its place, whole."""
    kind, (tensor, *_) = patch
    if kind not in ("diff", "set") or tuple(tensor.shape) != layer.shape:
        raise ValueError(
            f"{layer}: its '{kind}' of {list(tensor.shape)} does not fit {list(layer.shape)}. Use a LoRA of this "
            "model's family."
        )
    require_change(largest(tensor), layer)
    return patch


def _require_additive(adapter: WeightAdapterBase, layer: Layer) -> None:
    """LoRA, LoHa or LoKr in shapes that multiply to the layer's, though the forward pass does not take them."""
    parts = list(adapter.weights)
    try:
        require_fit(adapter, layer)
    except NotInForwardError:
        if adapter.name == "loha" or len(layer.shape) not in (2, 4) or not _multiplies(adapter.name, parts, layer):
            raise


def _multiplies(family: str, parts: list[Any], layer: Layer) -> bool:
    """Whether the factors' outer sizes are the layer's: a product of any other would be reshaped into nonsense."""
    out, inner = layer.shape[0], math.prod(layer.shape[1:])
    if family == "lora":
        up, down, _, mid, _, reshape = parts
        flat = (up.shape[0], math.prod(down.shape[1:])) == (out, inner)
        return reshape is None and mid is None and flat and math.prod(up.shape[1:]) == down.shape[0]
    sides = _lokr_sides(parts)
    return sides is not None and (sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]) == (out, inner)


def _lokr_sides(parts: list[Any]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(rows, columns) of w1 and w2, kernels counted as columns; None for factors that do not multiply."""
    w1, w2, _, w1a, w1b, w2a, w2b, _, _ = parts
    if (w1 is None and (w1a is None or w1b is None)) or (w2 is None and (w2a is None or w2b is None)):
        return None
    first = tuple(w1.shape) if w1 is not None else (w1a.shape[0], w1b.shape[1])
    if len(first) != 2:
        return None
    if w2 is not None:
        return first, (w2.shape[0], math.prod(w2.shape[1:]))
    return first, (w2a.shape[0], w2b.shape[1])


def with_whole_kernel(patch: Any) -> Any:
    """A LoKr with a middle factor t2 as one with w2 whole, scaled by alpha / rank; anything else as it is.

    The host's merge of the factors fails where kron wants contiguous ones, and leaves the weight as it was.
    """
    if not (isinstance(patch, WeightAdapterBase) and patch.name == "lokr"):
        return patch
    w1, w2, alpha, w1a, w1b, w2a, w2b, t2, dora = patch.weights
    factors = w2 is None and w2a is not None and w2b is not None and t2 is not None
    if not factors or t2.ndim != 4 or (w2a.shape[0], w2b.shape[0]) != tuple(t2.shape[:2]):
        return patch
    kernel = torch.einsum("i j k l, j r, i p -> p r k l", t2.float(), w2b.float(), w2a.float()).contiguous()
    scale = 1.0 if alpha is None else alpha / w2b.shape[0]
    return type(patch)(patch.loaded_keys, (w1, kernel * scale, None, w1a, w1b, None, None, None, dora))


def _fit_glora(parts: list[Any], layer: Layer) -> None:
    """W a1 a2 + b1 b2 with a1 [in, r], a2 [r, in], b1 [out, r], b2 [r, inner]; the older form has each pair swapped."""
    a1, a2, b1, b2, alpha, _ = parts
    out, inner, rank = layer.shape[0], math.prod(layer.shape[1:]), a2.shape[0]
    flat = [(part.shape[0], math.prod(part.shape[1:])) for part in (a1, a2, b1, b2)]
    old_rank = a1.shape[0]
    old = [(old_rank, inner), (inner, old_rank), (old_rank, inner), (out, old_rank)]
    if flat == [(layer.shape[1], rank), (rank, layer.shape[1]), (out, rank), (rank, inner)]:
        pairs = (a1, a2), (b1, b2)
    elif flat == old:
        pairs, rank = ((a2, a1), (b2, b1)), old_rank
    else:
        raise _shapes_differ("GLoRA", [a1, a2, b1, b2], layer)
    size = sum(product(first.flatten(1), second.flatten(1)) for first, second in pairs)
    require_change(size * (1.0 if alpha is None else abs(alpha) / rank), layer)


def _fit_oft(parts: list[Any], layer: Layer) -> None:
    """R W with R of blocks [n, b, b] on the diagonal, n b = out."""
    blocks = parts[0]
    count, size, other = blocks.shape
    if size != other or count * size != layer.shape[0]:
        raise _shapes_differ("OFT", [blocks], layer)


def _fit_boft(parts: list[Any], layer: Layer) -> None:
    """R_m ... R_1 W, each R_i of blocks [n, b, b] over strides of 2^i b / 2, n b = out; then rescale, [out, 1, ...]."""
    blocks, rescale = parts[0], parts[1]
    levels, count, size, other = blocks.shape
    out = layer.shape[0]
    if size != other or size % 2 or count * size != out or out % (2 ** (levels - 1) * size):
        raise _shapes_differ("BOFT", [blocks], layer)
    if rescale is not None:
        if tuple(rescale.shape) != (out, *[1] * (len(layer.shape) - 1)):
            raise _shapes_differ("BOFT", [blocks, rescale], layer)
        require_change(largest(rescale), layer)


FAMILIES: dict[str, Callable[[list[Any], Layer], None]] = {"glora": _fit_glora, "oft": _fit_oft, "boft": _fit_boft}
"""By the host's names: those that act on the weights alone."""


def _require_magnitudes(adapter: WeightAdapterBase, layer: Layer) -> None:
    """DoRA: one magnitude for each row [out, 1, ...] or each column [1, in, 1, ...] of a weight; LoRA-like families."""
    scale = adapter.weights[DORA_AT[adapter.name]]
    if scale is None:
        return
    if adapter.name in ("oft", "boft"):
        raise ValueError(
            f"{layer}: {adapter.name.upper()} with dora_scale, which the host multiplies by the constraint. Remove "
            "dora_scale from the file, or use another LoRA."
        )
    ones = [1] * (len(layer.shape) - 2)
    if tuple(scale.shape) not in ((layer.shape[0], 1, *ones), (1, layer.shape[1], *ones)):
        raise _shapes_differ("DoRA", [scale], layer)
    require_change(largest(scale), layer)


def _shapes_differ(family: str, parts: list[Tensor], layer: Layer) -> ValueError:
    return ValueError(
        f"{layer}: its {family} tensors {[list(part.shape) for part in parts]} do not fit a layer of "
        f"{list(layer.shape)}. Use a LoRA of this model's family, or fetch it again."
    )


def _unfit(adapter: WeightAdapterBase, layer: Layer) -> ValueError:
    return _shapes_differ(type(adapter).__name__, [p for p in adapter.weights if isinstance(p, Tensor)], layer)
