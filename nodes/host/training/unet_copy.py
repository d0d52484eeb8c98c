"""What training needs of the host: a private copy of the UNet, latents to train on, conditioning as plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import comfy.lora
import comfy.model_management as management
import comfy.ops
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from comfy.sd import VAE
from einops import rearrange
from torch import Tensor, nn

from ....diffstyler_core.training.train import DrawLatents, Predict
from ..inputs import Conditioning
from ..model import unet_of

PREFIX = "diffusion_model."
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def training_dtype(precision: str) -> torch.dtype:
    """The number format of the frozen weights and activations; 'auto' is bf16 on GPUs that have it, else fp32."""
    if precision != "auto":
        return PRECISIONS[precision]
    device = management.get_torch_device()
    return torch.bfloat16 if management.should_use_bf16(device) and device.type != "cpu" else torch.float32


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


def predict_with(
    unet: nn.Module, model: ModelPatcher, conditioning: Conditioning, shape: tuple[int, ...], dtype: torch.dtype
) -> Predict:
    """The UNet with one prompt: (z_t [B, C, H, W], t [B]) -> eps or v, fp32.

    Raises ValueError for models that take more than a prompt (inpainting, unCLIP).
    """
    noise = torch.zeros(shape, device=management.get_torch_device())
    conds = comfy.sampler_helpers.convert_cond(conditioning)
    conds = comfy.samplers.encode_model_conds(model.model.extra_conds, conds, noise, noise.device, "positive")
    tensors = {
        name: cond.process_cond(batch_size=shape[0], area=None).cond.detach().clone().to(noise.device, dtype)
        for name, cond in conds[0]["model_conds"].items()
        if hasattr(cond, "cond") and isinstance(cond.cond, Tensor)
    }
    unknown = sorted(tensors.keys() - {"c_crossattn", "y"})
    if unknown or "c_crossattn" not in tensors:
        raise ValueError(f"model: training needs a plain text-to-image UNet; this one also takes {unknown}.")

    def predict(z: Tensor, t: Tensor) -> Tensor:
        inputs = {"context": tensors["c_crossattn"][: z.shape[0]]}
        if "y" in tensors:
            inputs["y"] = tensors["y"][: z.shape[0]]
        return unet(z.to(dtype), t.float(), **inputs).float()

    return predict


def prepare_pictures(image: Tensor, resolution: int) -> Tensor:
    """Style pictures [B, R, R, 3]: the shorter side is resized to R (area-true), then the centre is cropped."""
    pixels = rearrange(image, "b h w c -> b c h w")
    height, width = pixels.shape[2:]
    scale = resolution / min(height, width)
    size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
    pixels = comfy.utils.common_upscale(pixels, *size, "area" if scale < 1 else "bicubic", "disabled")
    top, left = (pixels.shape[2] - resolution) // 2, (pixels.shape[3] - resolution) // 2
    pixels = pixels[:, :, top : top + resolution, left : left + resolution]
    return rearrange(pixels, "b c h w -> b h w c").clamp(0.0, 1.0)


@contextmanager
def _moments_of(vae: VAE, into: list[Tensor]) -> Iterator[None]:
    """While open, each encoding leaves the posterior's mean and log variance in ``into``, if the VAE has one."""
    regularization: Any = getattr(vae.first_stage_model, "regularization", None)
    if not type(regularization).__name__.startswith("DiagonalGaussian"):
        yield
        return

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        into.append(args[0].detach().float().cpu())

    handle = regularization.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


class LatentSource(NamedTuple):
    """Draws of scaled latents z_0 of random pictures, the shape of one [C, H, W], and what the user should know."""

    draw: DrawLatents
    shape: tuple[int, ...]
    words: str


def latent_source(vae: VAE, model: ModelPatcher, pictures: Tensor) -> LatentSource:
    """A fresh sample of the VAE's posterior each time, when the VAE gives one; its encoding otherwise.

    When the host ran out of memory and encoded in overlapping tiles, there is a posterior of each tile but none of
    the picture: then it is the encoding too.
    """
    moments: list[Tensor] = []
    with torch.inference_mode(), _moments_of(vae, moments):
        encoded = vae.encode(pictures).float().cpu()
    whole = bool(moments) and sum(len(m) for m in moments) == len(encoded)
    if whole:
        mean, log_variance = torch.cat(moments).chunk(2, dim=1)
        deviation = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
    else:
        mean, deviation = encoded, torch.zeros_like(encoded)
    tiled = bool(moments) and not whole
    if mean.shape != encoded.shape:
        raise ValueError(
            f"vae: its posterior has shape {list(mean.shape)}, its encoding {list(encoded.shape)}. "
            "Use the checkpoint's own VAE."
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(deviation).all()):
        raise ValueError(
            "vae: its encoding of style_image holds values that are not finite (NaN or infinity). "
            "Start ComfyUI with --fp32-vae, or use another VAE."
        )
    mean, deviation = mean.clone(), deviation.clone()  # made outside inference mode, so that autograd accepts them
    device = management.get_torch_device()

    def draw(count: int, generator: torch.Generator) -> Tensor:
        pick = torch.randint(0, mean.shape[0], (count,), generator=generator)
        noise = torch.randn((count, *mean.shape[1:]), generator=generator)
        return model.model.process_latent_in(mean[pick] + deviation[pick] * noise).to(device)

    words = (
        "the VAE encoded in tiles (too little memory for the whole picture): every step trained on the same encoding, "
        "not on fresh samples of its posterior"
    )
    return LatentSource(draw, tuple(mean.shape[1:]), words if tiled else "")


def module_names(model: ModelPatcher) -> dict[str, str]:
    """LDM module path -> diffusers' path, for the UNet's weights."""
    mapping: dict[str, Any] = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {
        ldm.removesuffix(".weight"): name.removesuffix(".weight")
        for name, ldm in mapping.items()
        if name.endswith(".weight")
    }
