"""What is trained on: style pictures at the training's resolution, and fresh samples of the VAE's posterior of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import comfy.model_management as management
import comfy.utils
import torch
from comfy.ldm.models.autoencoder import DiagonalGaussianRegularizer
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from einops import rearrange
from torch import Tensor, nn

from ....diffstyler_core.training.train import DrawLatents


def prepare_pictures(image: Tensor, resolution: int) -> Tensor:
    """Style pictures [B, R, R, 3]: the shorter side is resized to R (area-true), then the centre is cropped."""
    pixels = rearrange(image, "b h w c -> b c h w")
    height, width = pixels.shape[2:]
    scale = resolution / min(height, width)
    size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
    pixels = comfy.utils.common_upscale(pixels, *size, "area" if scale < 1 else "bicubic", "disabled")
    top, left = (pixels.shape[2] - resolution) // 2, (pixels.shape[3] - resolution) // 2
    pixels = pixels[:, :, top : top + resolution, left : left + resolution]
    return rearrange(pixels, "b c h w -> b h w c").clamp(0.0, 1.0)


class Posterior(NamedTuple):
    """The VAE's posterior of pictures: mean and deviation [N, C, h, w].

    tiled: the host ran out of memory and encoded in overlapping tiles. There is a posterior of each tile then but none
    of the picture: the mean is the encoding and the deviation 0, as for a VAE that gives no posterior.
    """

    mean: Tensor
    deviation: Tensor
    tiled: bool = False


def posterior_of(vae: VAE, pictures: Tensor) -> Posterior:
    """Raises ValueError when the VAE's posterior and encoding are of different shapes or not finite."""
    with torch.inference_mode(), _moments_of(vae) as moments:
        encoded = vae.encode(pictures).float().cpu()
    found = Posterior(encoded, torch.zeros_like(encoded), tiled=bool(moments))
    if moments and sum(map(len, moments)) == len(encoded):
        mean, log_variance = torch.cat(moments).chunk(2, dim=1)
        found = Posterior(mean, (0.5 * log_variance.clamp(-30.0, 20.0)).exp())
    if found.mean.shape != encoded.shape:
        raise ValueError(
            f"vae: its posterior has shape {list(found.mean.shape)}, its encoding {list(encoded.shape)}. "
            "Use the checkpoint's own VAE."
        )
    if not (torch.isfinite(found.mean).all() and torch.isfinite(found.deviation).all()):
        raise ValueError(
            "vae: its encoding of style_image holds values that are not finite (NaN or infinity). "
            "Start ComfyUI with --fp32-vae, or use another VAE."
        )
    return found


@contextmanager
def _moments_of(vae: VAE) -> Iterator[list[Tensor]]:
    """Gathers mean and log variance [B, 2 C, h, w] of each encoding made while it is open; none of other VAEs."""
    moments: list[Tensor] = []
    regularization = getattr(vae.first_stage_model, "regularization", None)
    if not isinstance(regularization, DiagonalGaussianRegularizer):
        yield moments
        return

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        moments.append(args[0].detach().float().cpu())

    handle = regularization.register_forward_pre_hook(keep)
    try:
        yield moments
    finally:
        handle.remove()


class LatentSource(NamedTuple):
    """Draws of scaled latents z_0 of random pictures, the shape of one [C, H, W], and what the user should know."""

    draw: DrawLatents
    shape: tuple[int, ...]
    words: str


def latent_source(vae: VAE, model: ModelPatcher, pictures: Tensor) -> LatentSource:
    """A fresh sample of the VAE's posterior each time, where there is one. Must run outside inference mode."""
    posterior = posterior_of(vae, pictures)
    mean, deviation = posterior.mean.clone(), posterior.deviation.clone()  # made here, so that autograd accepts them
    device = management.get_torch_device()

    def draw(count: int, generator: torch.Generator) -> Tensor:
        pick = torch.randint(0, mean.shape[0], (count,), generator=generator)
        noise = torch.randn((count, *mean.shape[1:]), generator=generator)
        return model.model.process_latent_in(mean[pick] + deviation[pick] * noise).to(device)

    words = (
        "the VAE encoded in tiles (too little memory for the whole picture): every step trained on the same encoding, "
        "not on fresh samples of its posterior"
    )
    return LatentSource(draw, tuple(mean.shape[1:]), words if posterior.tiled else "")
