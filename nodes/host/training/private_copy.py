"""A copy of the host's UNet that training may change: its weights as the model's runs use them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.lora
import comfy.model_management as management
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ..model import unet_of

PREFIX = "diffusion_model."
WIDE = 64
"""Channels from which a UNet on a CPU trains in channels_last: measured, 4 % faster at 128, 5 % slower at 32."""


def require_plain_unet(model: ModelPatcher) -> None:
    """Raises ValueError for models that take more than the latent and a prompt (inpainting, depth, ...).

    Likewise for layers that are exchanged at the start of every run, which a copy of the weights would lose.
    """
    unet = unet_of(model)
    channels, taken = model.get_model_object("latent_format").latent_channels, unet.in_channels
    if taken != channels:
        raise ValueError(
            f"model: training needs a plain text-to-image UNet, which takes {channels} channels; this one takes "
            f"{taken} (inpainting, depth, ...). Load the plain checkpoint."
        )
    injected = sorted(name for name, injections in model.injections.items() if injections)
    if injected:
        raise ValueError(
            f"model: {', '.join(injected)} exchanges its layers at the start of every run, and training works on the "
            "weights alone. Use Load LoRA instead of its bypass form, or wire the model from before that node."
        )


def private_unet(model: ModelPatcher, dtype: torch.dtype) -> UNetModel:
    """A trainable copy of the model's UNet with its patches merged, on the compute device; the model stays as it is.

    It is built anew from the model's configuration and filled weight by weight, each from the unpatched original: so
    it holds none of the hooks, casts and patch functions by which the host keeps a model partly loaded, and no more
    than one weight in fp32 exists at a time. Must run outside inference mode.
    Raises ValueError when a weight is not finite.
    """
    source, device = unet_of(model), management.get_torch_device()
    size = sum(weight.numel() for weight in source.state_dict().values()) * dtype.itemsize
    management.free_memory(3 * size, device)  # as much again twice for gradients and activations
    config = {**model.model.model_config.unet_config, "dtype": dtype}
    unet = type(source)(**config, device="meta", operations=comfy.ops.disable_weight_init)
    with torch.no_grad():
        for key, patched in model.get_key_patches(PREFIX).items():
            weight = merged(model, key, patched, device, dtype)
            if not torch.isfinite(torch.stack(torch.aminmax(weight))).all():  # one pass, NaN included
                raise ValueError(
                    f"model: its weight {key} holds values that are not finite (NaN or infinity)"
                    f"{', with the LoRAs that are merged into it' if len(patched) > 1 else ''}. "
                    "Load another checkpoint, or take the LoRA out."
                )
            comfy.utils.set_attr_param(unet, key.removeprefix(PREFIX), weight)
    lacking = [name for name, parameter in unet.named_parameters() if parameter.is_meta]
    if lacking:
        raise ValueError(f"model: it has no weights for {', '.join(lacking[:3])}. Load the whole checkpoint.")
    if device.type == "cpu" and unet.model_channels >= WIDE:  # its convolutions then save their reordering
        unet.to(memory_format=torch.channels_last)
    return unet.eval()


def merged(model: ModelPatcher, key: str, patched: list[Any], device: torch.device, dtype: torch.dtype) -> Tensor:
    """One weight as the model's runs use it, newly made: ``patched`` is [(original, its conversion), *patches]."""
    (original, convert), *patches = patched
    weight = torch.zeros(original.shape) if original.is_meta else convert(original.detach())  # absent: the host's zeros
    if isinstance(weight, QuantizedTensor):
        weight = weight.dequantize()
    wrappers = model.weight_wrapper_patches.get(key, [])
    if not (patches or wrappers):
        return weight.to(device=device, dtype=dtype, copy=True)
    weight = weight.to(device=device, dtype=torch.float32, copy=True)
    weight = comfy.lora.calculate_weight(patches, weight, key)
    for wrapper in wrappers:
        weight = wrapper(weight)
    return weight.to(dtype)


def blocks_of(unet: UNetModel) -> Iterator[nn.Module]:
    """The layers whose activations gradient checkpointing recomputes."""
    for blocks in (unet.input_blocks, [unet.middle_block], unet.output_blocks):
        for block in blocks:
            yield from block


def module_names(model: ModelPatcher) -> dict[str, str]:
    """LDM module path -> diffusers' path, for the UNet's weights."""
    mapping: dict[str, Any] = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {
        ldm.removesuffix(".weight"): name.removesuffix(".weight")
        for name, ldm in mapping.items()
        if name.endswith(".weight")
    }
