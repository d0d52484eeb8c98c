"""The training prompt as plain tensors for the private UNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management as management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ....diffstyler_core.training.train import Predict
from ..checks.conditioning import Conditioning

ACTS_BESIDE = {
    "control": "a ControlNet",
    "cross_attn_controlnet": "a ControlNet's prompt",
    "hooks": "hooks (LoRAs, schedules or options of its own)",
    "gligen": "GLIGEN boxes",
    "additional_models": "models of its own",
}
"""What of a prompt changes the UNet's work in a run, and could not act in training: the private UNet has none of it."""
USED = {
    "pooled_output", "width", "height", "crop_w", "crop_h", "target_width", "target_height", "aesthetic_score",
    "prompt_type", "model_conds",
}  # fmt: skip
"""What the host makes the UNet's inputs of; all CLIPs give the pooled output, whether the UNet takes it or not."""
USED_WITH_VECTOR = {"unclip_conditioning", "unclip_noise_augment_merge"}
"""Likewise, for a UNet that takes a vector beside the prompt (SDXL, unCLIP)."""
MEANS_NOTHING_ALONE = {
    "strength", "mask_strength", "set_area_to_bounds", "control_apply_to_uncond", "start_percent", "end_percent",
    "clip_start_percent", "clip_end_percent", "area", "mask", "default", "uuid",
}  # fmt: skip
"""Shares and places among several prompts: one for the whole picture and the whole run has them all."""


def require_trainable(conditioning: Conditioning, name: str) -> None:
    """Raises ValueError for a prompt that carries what acts in a run and cannot in training."""
    for _, options in conditioning:
        found = [words for key, words in ACTS_BESIDE.items() if options.get(key) is not None]
        if found:
            raise ValueError(
                f"{name}: the LoRA is trained with the prompt alone, got one with {' and '.join(found)}. Wire CLIP "
                "Text Encode straight to this node; what else acts belongs on the sampler's prompts."
            )


def prompt_notes(conditioning: Conditioning, model: ModelPatcher) -> list[str]:
    """A line for each other part of a prompt that training does not use, to be shown on the node."""
    known = {*ACTS_BESIDE, *USED, *MEANS_NOTHING_ALONE, *(USED_WITH_VECTOR if model.model.adm_channels else ())}
    unused = {key: None for _, options in conditioning for key, value in options.items() if value is not None}
    return [f"note: the prompt's {key!r:.100} is not used in training" for key in unused if key not in known]


def predict_with(
    unet: nn.Module, model: ModelPatcher, conditioning: Conditioning, shape: tuple[int, ...], dtype: torch.dtype
) -> Predict:
    """The UNet with one prompt: (z_t [B, C, H, W], t [B]) -> eps or v, fp32.

    Raises ValueError for models that take more than a prompt (inpainting, depth, ...).
    """
    made = unet_inputs(model, conditioning, shape, dtype)
    tensors = {name: tensor.detach().clone() for name, tensor in made.items()}
    return predict_by(unet, lambda: tensors, dtype)


def predict_by(unet: nn.Module, inputs: Callable[[], dict[str, Tensor]], dtype: torch.dtype) -> Predict:
    """The UNet with a prompt that is encoded anew for each evaluation: what it is made of may be trained.

    Its attention is PyTorch's whatever the host's is: that one has a backward pass, which keeps no maps.
    """

    def predict(z: Tensor, t: Tensor) -> Tensor:
        made, count = inputs(), z.shape[0]
        rows = {name: tensor if len(tensor) == count else tensor[:count] for name, tensor in made.items()}
        options = {"optimized_attention_override": _trainable_attention}
        return unet(z.to(dtype), t.float(), **rows, transformer_options=options).float()

    return predict


def _trainable_attention(chosen: Callable[..., Tensor], *qkv: Any, **settings: Any) -> Tensor:
    """PyTorch's attention in the place of the host's choice, which this host hands over with its arguments."""
    out: Tensor = attention_pytorch(*qkv, **settings)
    return out


def unet_inputs(
    model: ModelPatcher, conditioning: Conditioning, shape: tuple[int, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    """What the UNet takes beside z_t [B, C, H, W] of that shape and t: context [B, tokens, width], and y of SDXL.

    Raises ValueError for models that take more than a prompt (inpainting, depth, ...).
    """
    noise = torch.zeros(shape, device=management.get_torch_device())
    conds = comfy.sampler_helpers.convert_cond(conditioning)
    conds = comfy.samplers.encode_model_conds(model.model.extra_conds, conds, noise, noise.device, "positive")
    made = conds[0]["model_conds"]
    unknown = sorted(made.keys() - {"c_crossattn", "y"})
    if unknown or "c_crossattn" not in made:
        raise ValueError(f"model: training needs a plain text-to-image UNet; this one also takes {unknown}.")
    return {
        "context" if name == "c_crossattn" else name: cond.process_cond(batch_size=shape[0], area=None).cond.to(
            noise.device, dtype
        )
        for name, cond in made.items()
    }
