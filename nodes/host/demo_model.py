"""The demo checkpoint's model class: Stable Diffusion 2.1's blocks, 32 channels wide, sixteen latent channels.

The host recognises a checkpoint by its model classes; this one is added to them, so that the stock Load
Checkpoint node opens `demo/diffstyler-demo.safetensors`. tools/train_demo_checkpoint.py made the file.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "demo"
MARKER = "diffstyler_demo.version"  # a tensor of this name is in our file and in no other
LATENT_CHANNELS = 16
CONTEXT = 64
TEXT = {
    "hidden_size": CONTEXT,
    "intermediate_size": 4 * CONTEXT,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
# What the host detects from the file's shapes; all of it must agree.
UNET: dict[str, Any] = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "use_linear_in_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
}


def preview_factors(folder: Path = DEMO_FOLDER) -> tuple[list[list[float]] | None, list[float] | None]:
    """Latent-to-colour matrix [16, 3] and bias [3] from demo/model.json, for previews; None where there is no file."""
    path = folder / "model.json"
    if not path.is_file():
        return None, None
    latent = json.loads(path.read_text(encoding="utf-8"))["latent"]
    return latent["rgb_factors"], latent["rgb_bias"]


@cache
def text_classes() -> tuple[type, type]:
    """Tokenizer and text encoder: CLIP's vocabulary, two small layers."""
    import comfy.sd1_clip as clip

    class DemoTextLayers(clip.SDClipModel):
        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None, **_: Any
        ) -> None:
            super().__init__(
                device=device, dtype=dtype, textmodel_json_config=dict(TEXT), return_projected_pooled=False,
                model_options=model_options or {},
            )  # fmt: skip

    class DemoTextEncoder(clip.SD1ClipModel):
        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None, **_: Any
        ) -> None:
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, clip_name="l", clip_model=DemoTextLayers
            )

    class DemoTokenizer(clip.SD1Tokenizer):
        pass

    return DemoTokenizer, DemoTextEncoder


@cache
def model_class() -> type:
    """The `comfy.supported_models` class of the demo checkpoint."""
    import torch
    from comfy import latent_formats, model_base, supported_models, supported_models_base, utils

    factors, bias = preview_factors()

    class DemoLatent(latent_formats.LatentFormat):
        scale_factor = 1.0
        latent_channels = LATENT_CHANNELS
        latent_rgb_factors = factors
        latent_rgb_factors_bias = bias

    class DiffStylerDemo(supported_models.SD20):
        unet_config = dict(UNET)
        unet_extra_config = {"num_heads": -1, "num_head_channels": 16, "attn_precision": torch.float32}
        required_keys = {MARKER: None}
        latent_format = DemoLatent

        def model_type(self, state_dict: dict[str, Any], prefix: str = "") -> Any:
            return model_base.ModelType.V_PREDICTION

        def inpaint_model(self) -> bool:
            return False

        def clip_target(self, state_dict: dict[str, Any] | None = None) -> Any:
            return supported_models_base.ClipTarget(*text_classes())

        def process_clip_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
            return utils.state_dict_prefix_replace(state_dict, {"cond_stage_model.": ""}, filter_keys=True)

        def process_clip_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
            saved = utils.state_dict_prefix_replace(state_dict, {"": "cond_stage_model."})
            saved[MARKER] = torch.ones(1)
            return saved

    return DiffStylerDemo


def register_demo_model() -> None:
    """Make the demo checkpoint known to the host, and its folder listed by Load Checkpoint. Again: no effect."""
    import folder_paths
    from comfy import supported_models

    wanted = model_class()
    if all(MARKER not in getattr(known, "required_keys", {}) for known in supported_models.models):
        supported_models.models.append(wanted)
    folder_paths.add_model_folder_path("checkpoints", str(DEMO_FOLDER))
