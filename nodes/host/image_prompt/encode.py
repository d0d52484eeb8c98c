"""A picture through CLIP and a DEADiff checkpoint's extractors."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import Tensor
from torch.func import functional_call

from ....diffstyler_core.image_prompt.deadiff import DEADiff, Vision
from ..checks.numbers import require_finite

ROOM = 2 * 1024**3
"""Bytes of device memory that one extractor needs in fp32."""


def require_clip(clip_vision: Any, vision: Vision) -> None:
    """Raises ValueError unless clip_vision is the kind of CLIP that the checkpoint was trained on."""
    kind = getattr(clip_vision, "model_type", type(clip_vision).__name__)
    config = clip_vision.config if kind == "clip_vision_model" else {}
    patches = (config.get("image_size", 224) // config.get("patch_size", 14)) ** 2 + 1
    layers = config.get("num_hidden_layers", 1) - 1
    found = (config.get("hidden_size"), layers, patches)
    known = (vision.width, vision.layers or layers, vision.tokens or patches)
    if found != known:
        raise ValueError(
            "clip_vision must be the CLIP that DEADiff was trained on, ViT-L/14 at 224 pixels "
            f"({known[0]} wide, {known[2]} tokens, hidden states after {known[1]} layers), got "
            + (f"{found[0]} wide, {patches} tokens, {layers} layers but the last." if config else f"a {kind}.")
            + " Load openai/clip-vit-large-patch14 with Load CLIP Vision."
        )


def hidden_states(clip_vision: Any, pictures: Tensor) -> Tensor:
    """CLIP's hidden states [B, P, V] before its last layer and without its last norm, as LAVIS' clip_vit gives them.

    pictures [B, H, W, 3] in 0..1: resized to CLIP's square whatever their shape, as the published inference does.
    """
    return clip_vision.encode_image(pictures, crop=False)["penultimate_hidden_states"].float()


def image_tokens(deadiff: DEADiff, instruction: str, hidden: Tensor) -> Tensor:
    """Tokens [1, N, C] of one instruction, fp32 on the CPU; the mean over several pictures, as published."""
    extractor, device = deadiff.extractors[instruction], comfy.model_management.get_torch_device()
    if device.type != "cpu":
        comfy.model_management.free_memory(ROOM, device)
    weights = {name: tensor.to(device, torch.float32) for name, tensor in extractor.state_dict().items()}
    tokens = functional_call(extractor, weights, hidden.to(device, torch.float32)).mean(0, keepdim=True).cpu()
    require_finite(tokens, f"image tokens of {deadiff.source!r} ({instruction})")
    return tokens
