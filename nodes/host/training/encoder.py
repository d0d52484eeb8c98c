"""A copy of the host's CLIP text encoders through which gradients reach the vectors that stand in a prompt."""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_management as management
import comfy.ops
import comfy.utils
import torch
from comfy.clip_model import ACTIVATIONS, CLIPTextModel
from comfy.sd import CLIP
from comfy.sd1_clip import SDClipModel
from torch import Tensor, nn

from ..checks.conditioning import Conditioning
from .private_copy import merged

Tokens = dict[str, list[list[tuple[Any, float]]]]
"""A prompt as the host tokenises it: per encoder, sections of (token id or vector [width], weight)."""


def text_encoders(clip: CLIP) -> dict[str, SDClipModel]:
    """The CLIP's text encoders by the name that embedding files have for them: 'clip_l', 'clip_g', 'clip_h'.

    Raises ValueError for other text encoders (T5, ...), and for a CLIP with hooks, which could not act in training.
    """
    parts = dict(clip.cond_stage_model.named_children())
    others = [
        type(getattr(part, "transformer", part)).__name__
        for part in parts.values()
        if type(getattr(part, "transformer", None)) is not CLIPTextModel
    ]
    if others or not parts:
        raise ValueError(
            f"clip: a style embedding needs the CLIP text encoders of SD1.x, SD2.x or SDXL, got {others or 'none'}. "
            "Wire the checkpoint's own CLIP."
        )
    if clip.patcher.forced_hooks is not None or clip.apply_hooks_to_conds:
        raise ValueError("clip: it carries hooks, which could not act in training. Wire the CLIP from before them.")
    return parts


def widths_of(clip: CLIP) -> dict[str, int]:
    """The width of a token's vector for each encoder."""
    return {name: part.transformer.get_input_embeddings().weight.shape[1] for name, part in text_encoders(clip).items()}


class PrivateEncoder:
    """The CLIP's encoders in fp32 on the compute device, patches merged, frozen; the CLIP stays as it is.

    Must be made and used outside inference mode.
    """

    def __init__(self, clip: CLIP) -> None:
        self._layer = clip.layer_idx
        self._device = management.get_torch_device()
        self.parts = {name: private_part(clip, name, part, self._device) for name, part in text_encoders(clip).items()}
        self._whole = with_children(clip.cond_stage_model, self.parts)

    def __call__(self, tokens: Tokens) -> Conditioning:
        """What CLIP Text Encode gives for these tokens, with gradients to the vectors among them."""
        self._whole.reset_clip_options()
        if self._layer is not None:
            self._whole.set_clip_options({"layer": self._layer})
        self._whole.set_clip_options({"execution_device": self._device})
        embedding, pooled, *_ = self._whole.encode_token_weights(tokens)
        return [[embedding, {"pooled_output": pooled}]]


def private_part(clip: CLIP, name: str, part: SDClipModel, device: torch.device) -> SDClipModel:
    """One encoder with a transformer of its own."""
    source = part.transformer
    transformer = CLIPTextModel(config_of(source), torch.float32, "meta", comfy.ops.disable_weight_init)
    prefix = f"{name}.transformer."
    with torch.no_grad():
        for key, patched in clip.patcher.get_key_patches(prefix).items():
            weight = merged(clip.patcher, key, patched, device, torch.float32)
            comfy.utils.set_attr_param(transformer, key.removeprefix(prefix), weight)
    for module in transformer.modules():
        if isinstance(module, nn.LayerNorm):  # the host adds to its input in place, and the backward pass needs it
            module.register_forward_pre_hook(cloned)
    return with_children(part, {"transformer": transformer.requires_grad_(False).eval()})


def config_of(transformer: CLIPTextModel) -> dict[str, Any]:
    """What the transformer was made from, read from its layers."""
    inner = transformer.text_model
    layer = inner.encoder.layers[0]
    return {
        "num_hidden_layers": transformer.num_layers,
        "hidden_size": layer.mlp.fc1.weight.shape[1],
        "intermediate_size": layer.mlp.fc1.weight.shape[0],
        "num_attention_heads": layer.self_attn.heads,
        "hidden_act": next(name for name, function in ACTIVATIONS.items() if function is layer.mlp.activation),
        "max_position_embeddings": inner.embeddings.position_embedding.weight.shape[0],
        "eos_token_id": inner.eos_token_id,
    }


def with_children(module: Any, children: dict[str, Any]) -> Any:
    """A shallow copy of a module with other children; neither knows of the other's options."""
    made = copy.copy(module)
    made._modules = {**module._modules, **children}
    return made


def cloned(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A forward pre-hook: the module gets a copy of its input."""
    return (args[0].clone(), *args[1:])
