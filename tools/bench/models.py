"""What is measured on: the demo checkpoint, and SD1.5's shape at any width with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

PICTURES = Path(__file__).resolve().parents[2] / "demo" / "pictures"
CONTENT, STYLE = "content_chelsea.jpg", "style_mosaic.jpg"
PROMPT, NEGATIVE = "painting of <sss>", "ugly, blurry"
DEMO = "diffstyler-demo.safetensors"
CONTEXT = 768
SD15 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "use_checkpoint": False, "use_spatial_transformer": True, "legacy": False,
    "context_dim": CONTEXT, "adm_in_channels": None, "use_linear_in_transformer": False,
    "use_temporal_attention": False, "use_temporal_resblock": False, "transformer_depth": [1] * 6 + [0] * 2,
    "transformer_depth_middle": 1, "transformer_depth_output": [1] * 9 + [0] * 3,
}  # fmt: skip
FULL_WIDTH = 320
POSTERIOR = {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
"""A small AutoencoderKL, which has a posterior as SD1.5's own."""


class Subject(NamedTuple):
    """A model with all that a job on it takes.

    empty, positive, negative: CONDITIONINGs. content, style: IMAGEs. encoded: the content's latent [1, C, h, w].
    """

    name: str
    model: Any
    vae: Any
    empty: Any
    positive: Any
    negative: Any
    content: Tensor
    style: Tensor
    encoded: Tensor
    cfg: float

    @property
    def side(self) -> int:
        """Pixels along a side of the pictures."""
        return self.content.shape[1]

    def latent(self, frames: int = 1) -> dict[str, Tensor]:
        """The content's LATENT, as often as there are frames."""
        return {"samples": self.encoded.repeat(frames, 1, 1, 1)}


def demo_subject(host: Any, side: int) -> Subject:
    """The demo checkpoint with a picture and a style of the demo at this many pixels."""
    model, clip, vae = host.CheckpointLoaderSimple().load_checkpoint(DEMO)
    empty, positive, negative = (host.CLIPTextEncode().encode(clip, text)[0] for text in ("", PROMPT, NEGATIVE))
    content, style = picture(CONTENT, side), picture(STYLE, side)
    name = f"demo checkpoint, {side} px"
    return Subject(name, model, vae, empty, positive, negative, content, style, vae.encode(content), cfg=4.0)


def shaped_subject(width: int, side: int) -> Subject:
    """SD1.5's shape at this width (its own: 320), random weights and prompts."""
    generator = torch.Generator().manual_seed(1)
    empty, positive, negative = ([[torch.randn(1, 77, CONTEXT, generator=generator), {}]] for _ in range(3))
    vae, content, style = small_vae(), picture(CONTENT, side), picture(STYLE, side)
    encoded = torch.randn(1, 4, side // 8, side // 8, generator=generator)
    name, model = shape_name(width, side), sd15_model(width)
    return Subject(name, model, vae, empty, positive, negative, content, style, encoded, cfg=7.5)


def shape_name(width: int, side: int) -> str:
    """What the tables call ``shaped_subject``."""
    size = "SD1.5" if width == FULL_WIDTH else f"SD1.5's shape, {width} channels"
    return f"{size}, {side} px"


def sd15_model(width: int = FULL_WIDTH) -> Any:
    """A MODEL of SD1.5's topology with small random weights; fp16 where there is a GPU."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15({**SD15, "model_channels": width})
    config.set_inference_dtype(torch.float16 if torch.cuda.is_available() else torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    fill(model.diffusion_model)
    device = management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def small_vae() -> Any:
    """A VAE with a posterior and random weights, four channels at an eighth of the picture's side."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    weights = AutoencoderKL(embed_dim=4, ddconfig=POSTERIOR)
    fill(weights)
    return comfy.sd.VAE(sd=weights.state_dict(), config={"params": {"ddconfig": POSTERIOR, "embed_dim": 4}})


def fill(module: nn.Module) -> None:
    """Random weights that let a signal through without letting it grow."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.normal_(0, 0.7 * p[0].numel() ** -0.5, generator=generator)
            else:
                p.fill_(1.0 if name.endswith("weight") else 0.0)


def picture(name: str, side: int) -> Tensor:
    """A picture of the demo as IMAGE [1, side, side, 3]."""
    with Image.open(PICTURES / name) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), dtype=np.float32)
    return torch.from_numpy(pixels / 255.0)[None]
