"""Real ComfyUI models in miniature: the host's own classes with 32 channels and random weights."""

from __future__ import annotations

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.taesd.taesd
import torch

COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "use_checkpoint": False, "use_spatial_transformer": True, "legacy": False,
    "context_dim": 32, "adm_in_channels": None, "use_temporal_attention": False, "use_temporal_resblock": False,
    "transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3,
}  # fmt: skip
CONFIGS = {
    "sd21": {**COMMON, "use_linear_in_transformer": True},
    "sd15": {**COMMON, "use_linear_in_transformer": False},
    "sdxl": {
        **COMMON, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_middle": 2, "use_linear_in_transformer": True, "num_classes": "sequential",
        "adm_in_channels": 1568, "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    },
    "small": {
        **COMMON, "num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 0],
        "transformer_depth_output": [1, 1, 0, 0], "use_linear_in_transformer": True,
    },
}  # fmt: skip


class TinySD21(comfy.supported_models.SD20):
    """SD2.1's topology at 32 channels."""

    unet_config = {**comfy.supported_models.SD20.unet_config, "context_dim": 32, "model_channels": 32}
    unet_extra_config = {"num_heads": -1, "num_head_channels": 8, "attn_precision": torch.float32}
    velocity = False

    def model_type(self, state_dict, prefix=""):
        kinds = comfy.model_base.ModelType
        return kinds.V_PREDICTION if self.velocity else kinds.EPS


class TinySD15(comfy.supported_models.SD15):
    """SD1.5's topology at 32 channels."""

    unet_config = {**comfy.supported_models.SD15.unet_config, "context_dim": 32, "model_channels": 32}
    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}


class TinySDXL(comfy.supported_models.SDXL):
    """SDXL's topology at 32 channels and a fifth of its depth."""

    unet_config = {**comfy.supported_models.SDXL.unet_config, "context_dim": 32, "model_channels": 32}
    unet_extra_config = {"num_heads": -1, "num_head_channels": 8}
    velocity = False

    def model_type(self, state_dict, prefix=""):
        kinds = comfy.model_base.ModelType
        return kinds.V_PREDICTION if self.velocity else kinds.EPS


CLASSES = {"sd21": TinySD21, "sd15": TinySD15, "sdxl": TinySDXL, "small": TinySD21}
"""'small' has two levels only: features in layers 0-3, attention in layers 2-3. For what needs many evaluations."""


def fill(module: torch.nn.Module, seed: int, scale: float = 1.0) -> None:
    """Random weights of unit gain, so that signals neither die nor explode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise * scale * p.shape[1:].numel() ** -0.5)
            else:
                p.copy_(0.05 * noise + (1.0 if name.endswith("weight") else 0.0))


def make_model(kind: str = "sd21", velocity: bool = False, zsnr: bool = False, seed: int = 0):
    """A MODEL with random weights, as the stock loaders return it."""
    config = CLASSES[kind](dict(CONFIGS[kind]))
    config.velocity = velocity
    config.sampling_settings = {**config.sampling_settings, **({"zsnr": True} if zsnr else {})}
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    fill(model.diffusion_model, seed)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def make_vae(seed: int = 1):
    """A VAE of TAESD's shape with random weights."""
    taesd = comfy.taesd.taesd.TAESD(latent_channels=4)
    for module in (taesd.taesd_encoder, taesd.taesd_decoder):
        fill(module, seed)
    return comfy.sd.VAE(sd=taesd.state_dict())


def make_posterior_vae(seed: int = 2):
    """A VAE with a Gaussian posterior (AutoencoderKL) and random weights."""
    shape = {"double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
             "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    vae = comfy.sd.VAE(sd={}, config={"params": {"ddconfig": shape, "embed_dim": 4}})
    fill(vae.first_stage_model, seed)
    return vae


def make_prompt(seed: int, tokens: int = 77, sdxl: bool = False):
    """A CONDITIONING as CLIP Text Encode returns it."""
    generator = torch.Generator().manual_seed(seed)
    extra = {"pooled_output": torch.randn(1, 32, generator=generator)} if sdxl else {}
    return [[torch.randn(1, tokens, 32, generator=generator), extra]]


def make_latent(seed: int = 3, size: int = 16, batch: int = 1, channels: int = 4):
    """A LATENT of unit scale in the model's own space."""
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, channels, size, size, generator=generator) * 0.8 / 0.18215}
