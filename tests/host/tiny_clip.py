"""One small CLIP with random weights, three times: transformers', and the host's two halves with the same weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import comfy.sd
import comfy.sd1_clip
import torch
from comfy.clip_vision import ClipVisionModel

DIMENSION, PICTURE = 32, 32
LAYERS = {
    "hidden_size": DIMENSION, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": DIMENSION,
}  # fmt: skip
TEXT = {**LAYERS, "max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
VISION = {**LAYERS, "image_size": PICTURE, "patch_size": 8, "num_channels": 3}


@torch.inference_mode(False)
def make_folder(folder: Path):
    """A folder as transformers saves it; returns the model."""
    import transformers

    torch.manual_seed(3)
    config = transformers.CLIPConfig(text_config=dict(TEXT), vision_config=dict(VISION), projection_dim=DIMENSION)
    model = transformers.CLIPModel(config).eval()
    for weights in model.parameters():
        weights.data.add_(torch.randn_like(weights), alpha=0.05)
    model.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(Path(os.environ["COMFYUI_PATH"]) / "comfy" / "sd1_tokenizer" / name, folder / name)
    return model


def host_vision(model, **config):
    """CLIP_VISION with the weights of transformers' ``model``."""
    vision = ClipVisionModel({**VISION, "model_type": "clip_vision_model", **config})
    if model is not None:
        vision.model.load_state_dict(model.state_dict(), strict=False, assign=False)
    return vision


def host_text(model, projected=True):
    """CLIP with the weights of transformers' ``model``."""

    class Layers(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None, **_):
            super().__init__(device, dtype=dtype, textmodel_json_config=dict(TEXT), return_projected_pooled=projected,
                             model_options=model_options or {})  # fmt: skip

    class Encoder(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None, **_):
            super().__init__(device, dtype=dtype, model_options=model_options or {}, clip_name="l", clip_model=Layers)

    target = SimpleNamespace(params={}, clip=Encoder, tokenizer=comfy.sd1_clip.SD1Tokenizer)
    clip = comfy.sd.CLIP(target, parameters=1)
    clip.cond_stage_model.clip_l.transformer.load_state_dict(model.state_dict(), strict=False, assign=False)
    return clip
