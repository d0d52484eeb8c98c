"""Train Style Embedding at small settings: models whose CLIP fits their UNet, and the same weights elsewhere."""

from __future__ import annotations

from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import tiny
import tiny_clip
import torch
from comfy.clip_vision import ClipVisionModel

PROMPT = "painting in the style of *, houses"
PICTURE = torch.rand(1, 80, 72, 3, generator=torch.Generator().manual_seed(4))
EMBEDDING = {"method": "embedding", "learning_rate": 1e-2, "vectors": 2, "initial_word": "oil painting"}
ATTENTION = {"method": "attention (InST)", "learning_rate": 1e-2}


def train(pack, model, clip, vae, **changes: Any):
    """The node's output: three steps at 64 pixels."""
    settings = {
        "style_image": PICTURE, "prompt": PROMPT, "method": EMBEDDING, "steps": 3, "seed": 1, "resolution": 64,
        "batch_size": 1, "gradient_checkpointing": False, "precision": "fp32", "preview_every": 0, "save": True,
        "filename_prefix": "DiffStyler/test", **changes,
    }  # fmt: skip
    node = pack.pipeline.train_embedding.TrainStyleEmbedding
    return node.execute(model=model, clip=clip, vae=vae, **settings)


def vision(seed: int = 5) -> ClipVisionModel:
    """A CLIP_VISION with random weights."""
    made = ClipVisionModel({**tiny_clip.VISION, "model_type": "clip_vision_model"})
    tiny.fill(made.model, seed)
    return made


def random_clip(kind: str = "sd15", seed: int = 6, dtype: torch.dtype | None = None):
    """A CLIP with random weights: the host's own classes, small; kind sdxl has two encoders of width 16.

    dtype: of its weights; None is what the host chooses.
    """
    width = 16 if kind == "sdxl" else 32
    text = {**tiny_clip.TEXT, "hidden_size": width, "num_hidden_layers": 3}

    class Layers(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None, **more):
            hidden = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": kind != "sdxl"}
            super().__init__(device, dtype=dtype, textmodel_json_config=text, **({} if kind == "sd15" else hidden),
                             return_projected_pooled=True, model_options=model_options or {})  # fmt: skip

    class Two(comfy.sdxl_clip.SDXLClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            torch.nn.Module.__init__(self)
            self.clip_l, self.clip_g, self.dtypes = Layers(device, dtype), Layers(device, dtype), {dtype}

    class One(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None, **_):
            super().__init__(device, dtype=dtype, clip_name="l", clip_model=Layers)

    tokenizer = comfy.sdxl_clip.SDXLTokenizer if kind == "sdxl" else comfy.sd1_clip.SD1Tokenizer

    class Target:
        params: dict[str, Any] = {}
        clip = Two if kind == "sdxl" else One

    Target.tokenizer = tokenizer
    made = comfy.sd.CLIP(Target, parameters=1, model_options={} if dtype is None else {"dtype": dtype})
    tiny.fill(made.cond_stage_model, seed)
    return made


def sdxl_model():
    """An SDXL UNet that takes the pooled embedding of ``random_clip('sdxl')``."""
    config = tiny.TinySDXL({**tiny.CONFIGS["sdxl"], "adm_in_channels": 6 * 256 + 16})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    tiny.fill(model.diffusion_model, 0)
    return comfy.model_patcher.CoreModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
