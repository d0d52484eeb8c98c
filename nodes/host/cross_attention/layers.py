"""Which cross-attention layers a MODEL's UNet has, and the host's own attention for where nothing replaces it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel, Upsample
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ....diffstyler_core.injection.cross_layers import Block, CrossLayer, CrossLayers
from ..model import unet_of

Options = dict[str, Any]
Replacement = Callable[..., Tensor]
"""An attention replacement as the host calls it: (q, k, v, extra_options) -> [B, tokens, heads * dim]."""


def cross_layers(model: ModelPatcher) -> CrossLayers:
    """The UNet's cross-attention layers in the order of evaluation: encoder, middle, decoder.

    Raises ValueError for a MODEL without a UNet, for one of video, and for one without cross-attention.
    """
    layers: list[CrossLayer] = []
    cell = 1
    for block, module in _modules(unet_of(model)):
        if isinstance(module, SpatialVideoTransformer):
            raise ValueError(
                "model: cross-attention of video UNets (Stable Video Diffusion) reads a picture, not prompts. "
                "Load a Stable Diffusion checkpoint (SD1.x, SD2.x, SDXL)."
            )
        if isinstance(module, SpatialTransformer):
            layers.append(CrossLayer(len(layers), block, len(module.transformer_blocks), cell))
        cell = cell * 2 if isinstance(module, Downsample) else cell // 2 if isinstance(module, Upsample) else cell
    if not layers:
        raise ValueError("model: this UNet has no cross-attention: no prompt acts in it. Load another checkpoint.")
    return tuple(layers)


def _modules(unet: UNetModel) -> Iterator[tuple[Block, nn.Module]]:
    """Every module of every block, in the order of evaluation."""
    for name, blocks in (("input", unet.input_blocks), ("middle", [unet.middle_block]), ("output", unet.output_blocks)):
        for index, block in enumerate(blocks):
            yield from (((name, index), module) for module in block or ())


def attend(q: Tensor, k: Tensor, v: Tensor, extra_options: Options) -> Tensor:
    """The host's own attention, where no pack has replaced it."""
    heads, precision = extra_options["n_heads"], extra_options["attn_precision"]
    return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)


def replacement_at(replacements: Mapping[Any, Replacement], block: Block, depth: int) -> Replacement:
    """What computes the attention of a block: another pack's replacement, of this depth or of all, or the host's."""
    return replacements.get((*block, depth), replacements.get(block, attend))
