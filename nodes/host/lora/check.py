"""Which LoRAs run in the forward pass as they would in the weights, and what of a file is not applied.

Measured against the host's merged weights: LoRA and LoCon (with a middle factor on convolutions), LoHa and LoKr agree
to the fp32 floor in the shapes that are let through here. The host's forward forms of OFT, BOFT and GLoRA raise or
differ, and none of them knows dora_scale.
"""

from __future__ import annotations

from typing import Any

import comfy.lora_convert
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase

from ....diffstyler_core.lora.schedule import Lora
from .fit import FAMILIES, Layer, require_fit
from .keys import PREFIX, adapters_of, notes_on_keys, of_unet, require_complete
from .tensors import require_tensors


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
    own = of_unet(state)
    require_tensors(own, name)
    require_complete(own, name)
    adapters = adapters_of(model, own, name)
    if not adapters:
        sample = next(iter(lora), "no keys at all")
        raise ValueError(
            f"{name} matches 0 layers of this model: it was trained for another kind of model, or its keys "
            f"({len(lora)}, such as {sample!r}) are of an unknown form. Use a LoRA of this model's family."
        )
    for path, adapter in adapters.items():
        _require_forward(adapter, path, name)
        shape = tuple(comfy.utils.get_attr(model.model, f"{path}.weight").shape)
        require_fit(adapter, Layer(name, path, shape))
    used = frozenset().union(*(adapter.loaded_keys for adapter in adapters.values()))
    unmatched = [key for key in own if key not in used]
    return adapters, notes_on_keys(len(state) - len(own), unmatched, len(state), name)


def _require_forward(adapter: Any, path: str, name: str) -> None:
    if isinstance(adapter, WeightAdapterBase) and adapter.name in FAMILIES and path.startswith(PREFIX):
        return
    kind = type(adapter).__name__ if isinstance(adapter, WeightAdapterBase) else f"'{adapter[0]}'"
    raise ValueError(
        f"{name} changes {path!r} in a way that cannot run in the forward pass ({kind}). "
        "Apply it with Load LoRA before this node instead."
    )
