"""One cross-attention over text and image tokens: K = [c_t W_T^K, c_i W_I^K], V likewise (DEADiff, fig. 2b)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.image_prompt.prompt import ImagePrompt
from ....diffstyler_core.injection.cross_layers import CrossLayer, CrossLayers
from ..checks.numbers import require_finite
from ..model import unet_of
from .parts import Attend, Place

REMEDY = "Load the kind of checkpoint that it was made for: Stable Diffusion 1.5 or a finetune of it for DEADiff."


class JointAttention:
    """A joiner: keys and values of image tokens stand behind each prompt's own.

    The negative's rows read as many tokens of zeros, whose keys and values are zeros (the published inference).
    """

    def __init__(self, prompt: ImagePrompt, scale: float, numbers: Collection[int]) -> None:
        self._pairs: Mapping[int, tuple[Tensor, Tensor]] = {
            number: prompt.layers[number].keys_values(scale) for number in numbers
        }

    def attend(self, place: Place, q: Tensor, k: Tensor, v: Tensor, inner: Attend) -> Tensor:
        """The attention of one prompt's k and v [B, L, D], over [B, L + N, D] in the layers that have tokens."""
        if place.layer.number not in self._pairs:
            return inner(q, k, v)
        positive = place.positive(q)
        keys, values = (pair.to(q) * positive for pair in self._pairs[place.layer.number])
        return inner(q, torch.cat([k, keys], 1), torch.cat([v, values], 1))


def require_fits(prompt: ImagePrompt, layers: CrossLayers, model: ModelPatcher) -> None:
    """Raises ValueError that names the first layer in which the image prompt is of another kind of UNet."""
    if len(prompt.layers) != len(layers):
        raise ValueError(
            f"image_prompt: {prompt.source} made it for a UNet of {len(prompt.layers)} cross-attention layers (SD1.5 "
            f"has 16), and this model has {len(layers)}. {REMEDY}"
        )
    for number, tokens in enumerate(prompt.layers):
        for tensor in tokens:
            require_finite(tensor, f"image_prompt, layer {number}")
    context = model.model.model_config.unet_config.get("context_dim")
    if isinstance(context, int) and prompt.width != context:
        raise ValueError(
            f"image_prompt: {prompt.source} made tokens of width {prompt.width} to stand beside prompts of that width, "
            f"and this model's prompts have {context}. {REMEDY}"
        )
    for layer, wanted in zip(layers, prompt.widths, strict=True):
        found = width_of(layer, model)
        if found != wanted:
            raise ValueError(
                f"image_prompt: {prompt.source} projects to {wanted} channels in {layer}, and this model has {found} "
                f"there. {REMEDY}"
            )


def width_of(layer: CrossLayer, model: ModelPatcher) -> int:
    """Channels of a layer's keys, heads * dim."""
    unet = unet_of(model)
    kind, index = layer.block
    block = unet.middle_block if kind == "middle" else getattr(unet, f"{kind}_blocks")[index]
    attention = next(m for m in block if isinstance(m, SpatialTransformer)).transformer_blocks[0].attn2
    return attention.heads * attention.dim_head
