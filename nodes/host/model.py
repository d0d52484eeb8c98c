"""What the pack asks of a ComfyUI MODEL before it works with it: its UNet, its noise schedule, its family."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.supported_models import SD20, SDXL, SDXLRefiner
from torch import nn

from ...diffstyler_core.diffusion.schedule import NoiseSchedule, Prediction, Spacing
from ...diffstyler_core.injection.sites import Kind, UNetLayout
from .demo_model import MARKER


def unet_of(model: ModelPatcher) -> UNetModel:
    """The model's UNet. Raises ValueError for anything without a UNet decoder (Flux, SD3, ...)."""
    unet = model.get_model_object("diffusion_model")
    if _is_compiled_module(unet):
        raise ValueError(compiled_words("model"))
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"model: DiffStyler needs a Stable Diffusion UNet (SD1.x, SD2.x, SDXL), got {type(unet).__name__}. "
            "Transformer models such as Flux or SD3 have no decoder layers to capture; load another checkpoint."
        )
    return unet


def computing_dtype(base: Any) -> torch.dtype:
    """The number format in which a model of the host's (a BaseModel) computes, whatever its weights are kept in."""
    dtype: torch.dtype = base.manual_cast_dtype or base.get_dtype()
    return dtype


CACHES = {"EasyCacheHolder": "EasyCache", "LazyCacheHolder": "LazyCache"}
COMPILED = "torch.compile"
"""The host's key of a compiled MODEL, which other packs' nodes use as well."""
TOKEN_PATCHES = {"HyperTile": "HyperTile", "TomePatchModel": "ToMe Patch Model"}


APPLIED = "diffstyler_applied"
"""The key of what Apply Injection and Apply Styles put on a MODEL, and of a run's own state on its options."""


def require_compatible(model: ModelPatcher, name: str = "model", applied: bool = False) -> None:
    """Raises ValueError for the host's nodes that skip evaluations or rearrange attention's tokens at random.

    Also for Apply Injection and Apply Styles, unless they may be ``applied``: they would act twice or not at all.

    EasyCache and LazyCache answer in the UNet's place, so nothing is captured or injected there. HyperTile and ToMe
    draw anew at each call which tokens a query holds: captured ones belong to other places of the picture.
    A compiled UNet keeps the attention and layers of its first call, with what was injected there.
    Context Windows hand the run some of the batch's frames at a time, which the captured ones are not told.
    """
    if is_compiled(model):
        raise ValueError(compiled_words(name))
    if not applied and model.get_wrappers(WrappersMP.CALC_COND_BATCH, APPLIED):
        raise ValueError(
            f"{name} carries Apply Injection or Apply Styles already, which are for the host's samplers. Wire the "
            "MODEL from before that node."
        )
    if model.model_options.get("context_handler") is not None:
        raise ValueError(
            f"{name} carries Context Windows, which evaluates a batch of frames in parts, and what is captured and "
            "injected is of the whole batch. Wire the MODEL from before that node; frames_at_once of DDIM Invert and "
            "Capture bounds the memory, Share Attention across Frames keeps a clip's look."
        )
    options = model.model_options.get("transformer_options", {})
    holder = type(options.get("easycache")).__name__
    if holder in CACHES:
        raise ValueError(
            f"{name} carries {CACHES[holder]}, which skips UNet evaluations, and with them what is captured and "
            "injected there. Wire the MODEL from before that node."
        )
    for patch in options.get("patches", {}).get("attn1_patch", []):
        node = getattr(patch, "__qualname__", "").split(".")[0]
        if node in TOKEN_PATCHES:
            raise ValueError(
                f"{name} carries {TOKEN_PATCHES[node]}, which rearranges attention's tokens at random at each call: "
                "captured attention would go to other places of the picture. Wire the MODEL from before that node."
            )


def is_compiled(model: ModelPatcher) -> bool:
    """Whether torch.compile is on the MODEL: by the host's node, or on a module of its UNet by another pack's."""
    if model.get_wrappers(WrappersMP.APPLY_MODEL, COMPILED):
        return True
    patched = [patch for patch in model.object_patches.values() if isinstance(patch, nn.Module)]
    return any(map(_is_compiled_module, [*model.model.diffusion_model.modules(), *patched]))


def _is_compiled_module(module: nn.Module) -> bool:
    """Compiled in place, or torch's stand-in for a module, told by name: its home takes seconds to import."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def compiled_words(name: str) -> str:
    """Why a compiled MODEL is refused, and what to do."""
    return (
        f"{name} carries torch.compile, whose graph goes on with what acted in its first call: later captures, "
        "injections and LoRAs would be stale. Wire the MODEL from before TorchCompileModel."
    )


def layout_of(model: ModelPatcher) -> UNetLayout:
    """Which sites the model's decoder has, and the stride of each of its layers."""
    unet = unet_of(model)
    blocks: dict[Kind, dict[int, int]] = {"feature": {}, "self-attention": {}, "cross-attention": {}}
    strides, stride = {}, 2 ** sum(isinstance(m, Downsample) for block in unet.input_blocks for m in block)
    for layer, block in enumerate(unet.output_blocks):
        strides[layer] = stride
        for module in block:
            if isinstance(module, ResBlock):
                blocks["feature"][layer] = 1
            if isinstance(module, SpatialTransformer):
                blocks["self-attention"][layer] = len(module.transformer_blocks)
                blocks["cross-attention"][layer] = len(module.transformer_blocks)
            if isinstance(module, Upsample):  # the last of its layer: what comes after sees twice the cells
                stride //= 2
    return UNetLayout(blocks, strides)


def is_demo(model: ModelPatcher) -> bool:
    """Whether it is the demo checkpoint that comes with the pack, whose small network wants settings of its own."""
    return MARKER in model.model.model_config.required_keys


def native_side(model: ModelPatcher) -> int:
    """Pixels along a side of the square pictures that the model was trained on.

    Raises ValueError for a model without a UNet decoder.
    """
    unet_of(model)
    config = model.model.model_config
    if is_demo(model):
        return 256
    if isinstance(config, (SDXL, SDXLRefiner)):
        return 1024
    return 768 if isinstance(config, SD20) and prediction_of(model) == "v" else 512


def prediction_of(model: ModelPatcher) -> Prediction:
    """What the UNet predicts. Raises ValueError for anything but eps and velocity, or without a UNet."""
    unet_of(model)
    sampling = model.get_model_object("model_sampling")
    denoised = type(sampling).calculate_denoised
    if denoised is comfy.model_sampling.V_PREDICTION.calculate_denoised:
        return "v"
    if denoised is comfy.model_sampling.EPS.calculate_denoised:
        return "eps"
    names = ", ".join(c.__name__ for c in type(sampling).__mro__[1:-1])
    raise ValueError(
        f"model: DDIM needs an eps or v-prediction model, got one sampled as {names}. "
        "Remove the ModelSampling patch, or load another checkpoint."
    )


def abar_of(model: ModelPatcher) -> tuple[float, ...]:
    """The model's table of cumulative alphas, in double precision. Raises ValueError when it has no such table."""
    prediction_of(model)
    sigmas = getattr(model.get_model_object("model_sampling"), "sigmas", None)
    if sigmas is None or len(sigmas) != 1000:
        raise ValueError("model: DDIM needs a schedule of 1000 training timesteps, and this model has none.")
    return tuple((1.0 / (1.0 + sigmas.double() ** 2)).tolist())


def schedule_of(model: ModelPatcher, steps: int, spacing: Spacing = "leading") -> NoiseSchedule:
    """The schedule of an S-step run on this model."""
    return NoiseSchedule.leading(abar_of(model), prediction_of(model), steps, spacing)


def family_of(model: ModelPatcher) -> str:
    """A name that two models share when one's latents and features mean something to the other."""
    prediction, config = prediction_of(model), model.model.model_config
    unet, noise = config.unet_config, float(model.get_model_object("model_sampling").sigma_max)
    return (
        f"{type(config).__name__} ({unet.get('in_channels')} latent channels, {unet.get('model_channels')} channels, "
        f"context {unet.get('context_dim')}, {prediction}-prediction, noise up to {noise:.2f})"
    )


def require_family(model: ModelPatcher, family: str, what: str) -> None:
    """Raises ValueError when ``what`` was made with a model of another family."""
    if family != family_of(model):
        raise ValueError(
            f"{what} was made with another kind of model: {family}, and this model is {family_of(model)}. "
            "Wire the same checkpoint (or one of its family) into both nodes."
        )
