"""How each layer's part of a LoRA acts, and what of a file is not applied.

Measured against the host's merged weights: LoRA and LoCon (with a middle factor on convolutions), LoHa and LoKr agree
to the fp32 floor when they are added in the forward pass. The host's forward forms of OFT, BOFT and GLoRA raise or
differ, and none of them knows dora_scale: those, differences of a whole weight, of norms and of biases run with merged
weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import comfy.lora_convert
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase

from ....diffstyler_core.lora.schedule import Lora
from .fit import FAMILIES, Layer, NotInForwardError, require_fit
from .fit_merged import DORA_AT, Probes, require_merge, with_whole_kernel
from .keys import PREFIX, notes_on_keys, of_unet, patches_of, require_complete
from .merged import PARAMETERS
from .tensors import require_tensors

MEGABYTE = 1_000_000


class Checked(NamedTuple):
    """A LoRA on a model. Keys are paths in the model.

    added: of layers, without '.weight', what the forward pass adds. merged: of parameters, what their weights take.
    notes: lines on what is not applied, and on what it costs.
    """

    added: dict[str, WeightAdapterBase]
    merged: dict[str, Any]
    notes: tuple[str, ...]


def checked_adapters(model: ModelPatcher, lora: Lora, name: str) -> Checked:
    """What acts where. Raises ValueError that names the LoRA, the layer and the tensor for everything that would give
    NaN, fail in the middle of a run, or act otherwise than in the weights.
    """
    strange = next((key for key in lora if not isinstance(key, str)), None)
    if strange is not None:
        raise ValueError(f"{name}: its keys are names of layers, got {strange!r:.100}. Wire a LoRA.")
    state = comfy.lora_convert.convert_lora(dict(lora))
    own = of_unet(state)
    require_tensors(own, name)
    require_complete(own, name)
    patches, used = patches_of(model, own, name)
    if not patches:
        sample = next(iter(lora), "no keys at all")
        raise ValueError(
            f"{name} matches 0 layers of this model: it was trained for another kind of model, or its keys "
            f"({len(lora)}, such as {sample!r}) are of an unknown form. Use a LoRA of this model's family."
        )
    added, merged = _sorted_by_way(model, patches, name)
    unmatched = [key for key in own if key not in used]
    notes = notes_on_keys(len(state) - len(own), unmatched, len(state), name)
    return Checked(added, merged, (*notes, *_notes_on_merging(model, merged, name)))


def _sorted_by_way(
    model: ModelPatcher, patches: Mapping[str, Any], name: str
) -> tuple[dict[str, WeightAdapterBase], dict[str, Any]]:
    added, merged, probes = {}, {}, Probes()
    for key, made in patches.items():
        patch = with_whole_kernel(made)
        path, _, parameter = key.rpartition(".")
        layer = Layer(name, path, tuple(comfy.utils.get_attr(model.model, key).shape))
        if parameter == "weight" and _adds(patch, layer):
            added[path] = patch
        else:
            _require_merging(model, key, name)
            merged[key] = require_merge(patch, layer, probes)
    return added, merged


def _adds(patch: Any, layer: Layer) -> bool:
    """Whether the forward pass can add it. Raises ValueError for what fits in neither way."""
    if not isinstance(patch, WeightAdapterBase) or patch.name not in FAMILIES:
        return False
    if patch.weights[DORA_AT[patch.name]] is not None:
        return False
    try:
        require_fit(patch, layer)
    except NotInForwardError:
        return False
    return True


def _require_merging(model: ModelPatcher, key: str, name: str) -> None:
    """Raises ValueError for a parameter that the host does not make ready for each call."""
    path, _, parameter = key.rpartition(".")
    module = comfy.utils.get_attr(model.model, path)
    if key.startswith(PREFIX) and parameter in PARAMETERS and hasattr(module, f"{parameter}_function"):
        return
    raise ValueError(
        f"{name} changes {key!r}, which this node cannot give to one style alone ({type(module).__name__}). Apply the "
        "LoRA with Load LoRA before this node instead."
    )


def _notes_on_merging(model: ModelPatcher, merged: Mapping[str, Any], name: str) -> list[str]:
    if not merged:
        return []
    kinds = Counter(_kind(patch) for patch in merged.values())
    size = sum(comfy.utils.get_attr(model.model, key).numel() for key in merged) * model.model_dtype().itemsize
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    notes = [
        f"note: {len(merged)} weights of {name} ({words}) are merged for its rows: up to {size / MEGABYTE:.3g} MB more "
        "on the computing device during the run"
    ]
    idle = sum(_has_idle_rescale(patch) for patch in merged.values())
    if idle:
        notes.append(f"note: rescale of {idle} OFT layers of {name} is not applied, as in the host's Load LoRA")
    return notes


def _kind(patch: Any) -> str:
    if not isinstance(patch, WeightAdapterBase):
        return f"'{patch[0]}'"
    return "DoRA" if patch.weights[DORA_AT[patch.name]] is not None else type(patch).__name__.removesuffix("Adapter")


def _has_idle_rescale(patch: Any) -> bool:
    return isinstance(patch, WeightAdapterBase) and patch.name == "oft" and patch.weights[1] is not None
