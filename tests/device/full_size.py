"""SD1.5, SD2.1 and SDXL as the host's loaders return them, at full size and without values."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import torch
from absent_device import CPU, CUDA

COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_checkpoint": False,
    "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
SD = {
    **COMMON, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "adm_in_channels": None,
    "transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3,
}  # fmt: skip
UNETS = {
    "sd15": {**SD, "context_dim": 768, "use_linear_in_transformer": False},
    "sd21": {**SD, "context_dim": 1024, "use_linear_in_transformer": True},
    "sdxl": {
        **COMMON, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816, "context_dim": 2048,
        "num_heads": -1, "num_head_channels": 64,
    },
}  # fmt: skip


class SD21(comfy.supported_models.SD20):
    """SD2.1 at 768 pixels, which predicts v. The host tells it by a weight's values, and here there are none."""

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        return comfy.model_base.ModelType.V_PREDICTION


CLASSES = {"sd15": comfy.supported_models.SD15, "sd21": SD21, "sdxl": comfy.supported_models.SDXL}
SIDE = {"sd15": 64, "sd21": 96, "sdxl": 128}
"""Of the latent, at the model's own resolution."""


def make_model(kind: str, weights: torch.dtype, computing: torch.dtype | None = None) -> Any:
    """A MODEL whose weights wait on the CPU. computing: the host's manual cast, where it is another number format."""
    config = CLASSES[kind](dict(UNETS[kind]))
    config.set_inference_dtype(weights, computing)
    model = config.get_model({}, "", device=CPU)
    return comfy.model_patcher.ModelPatcher(model, load_device=CUDA, offload_device=CPU)


def make_prompt(kind: str, seed: int) -> Any:
    """A CONDITIONING as CLIP Text Encode returns it."""
    generator = torch.Generator().manual_seed(seed)
    extra = {"pooled_output": torch.randn(1, 1280, generator=generator)} if kind == "sdxl" else {}
    return [[torch.randn(1, 77, UNETS[kind]["context_dim"], generator=generator), extra]]


def make_latent(kind: str, seed: int) -> Any:
    """A LATENT of the model's own resolution."""
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(1, 4, SIDE[kind], SIDE[kind], generator=generator)}
