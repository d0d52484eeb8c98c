"""What the pack is compared with: diffusers' UNet and schedulers on the same weights, and loops written out here."""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import tiny
import torch
from torch import Tensor

from tools.diffusers_unet import load_into_host

SHAPES: dict[str, dict[str, Any]] = {
    "sd21": {"block_out_channels": (32, 64, 128, 128), "attention_head_dim": [4, 8, 16, 16], "layers_per_block": 2},
    "sd15": {"block_out_channels": (32, 64, 128, 128), "attention_head_dim": 4, "layers_per_block": 2},
    "small": {"block_out_channels": (32, 32), "attention_head_dim": 4, "layers_per_block": 1},
    "sdxl": {
        "block_out_channels": (32, 64, 128),
        "attention_head_dim": [4, 8, 16],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 1, 2],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 32 + 6 * 256,
    },
}
"""'sdxl' has its attention on the inner levels, the others on the outer ones."""


def diffusers_unet(kind: str, seed: int) -> diffusers.UNet2DConditionModel:
    """A UNet with diffusers' own first weights (damped, unlike ``tiny.fill``'s: a trained UNet is closer to it).

    Only the biases and norms are moved, so that none of them is idle.
    """
    levels = len(SHAPES[kind]["block_out_channels"])
    down = ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"]
    if kind == "sdxl":
        down = down[::-1]
    up = [name.replace("Down", "Up") for name in reversed(down)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = diffusers.UNet2DConditionModel(
            sample_size=16,
            cross_attention_dim=32,
            use_linear_projection=kind != "sd15",
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            **SHAPES[kind],
        ).eval()
        for p in unet.parameters():
            if p.ndim == 1:
                p.data.add_(0.05 * torch.randn_like(p))
    return unet


def pair(kind: str, seed: int, velocity: bool = False, zsnr: bool = False, damping: float = 1.0) -> tuple[Any, Any]:
    """(diffusers' UNet, the host's MODEL) with the same weights. ``damping`` scales what the UNet puts out."""
    unet = diffusers_unet(kind, seed)
    unet.conv_out.weight.data.mul_(damping)
    model = tiny.make_model(kind, velocity, zsnr)
    load_into_host(unet, model)
    return unet, model


class Sized(torch.nn.Module):
    """diffusers' SDXL UNet, told a row's pooled prompt [B, 32] and six sizes: original, crop, target, height first."""

    def __init__(self, unet: Any, pooled: Tensor, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("pooled", pooled)
        self.register_buffer("sizes", torch.tensor([sizes], dtype=torch.float32).repeat(len(pooled), 1))

    def forward(self, x: Tensor, t: Any, encoder_hidden_states: Tensor) -> Any:
        added = {"text_embeds": self.pooled, "time_ids": self.sizes}
        return self.unet(x, t, encoder_hidden_states=encoder_hidden_states, added_cond_kwargs=added)


def in_float64(unet: Any) -> Any:
    """The same UNet in double precision."""
    return copy.deepcopy(unet).double()


def scheduler(kind: type, steps: int, velocity: bool = False) -> Any:
    """diffusers' DDIM or inverse DDIM scheduler with Stable Diffusion's settings."""
    made = kind(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction" if velocity else "epsilon",
    )
    made.set_timesteps(steps)
    return made


def inverted(unet: Any, z: Tensor, context: Tensor, steps: int) -> list[Tensor]:
    """diffusers' inversion of an eps model: the latent at every level it visits, the content first."""
    levels, ddim = [z], scheduler(diffusers.DDIMInverseScheduler, steps)
    for t in ddim.timesteps:
        output = unet(levels[-1], t, encoder_hidden_states=context).sample
        levels.append(ddim.step(output, t, levels[-1]).prev_sample)
    return levels


def cumulative_alphas(zsnr: bool = False) -> list[float]:
    """Stable Diffusion's table in double precision; zsnr: of zero terminal SNR, the last entry as the host has it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    if zsnr:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return [*root.square()[:-1].tolist(), 4.8973451890853435e-08 if zsnr else root[-1].item() ** 2]


def inverted_velocity(
    unet: Any, z: Tensor, context: Tensor, steps: int, zsnr: bool = False, refinements: int = 0
) -> list[Tensor]:
    """Inversion of a v model as method.md section 2 writes it, in double precision: every level, the content first."""
    abar, exact, prompt = cumulative_alphas(zsnr), in_float64(unet), context.double()
    levels, left = [z.double()], abar[0]
    for i in range(steps):
        t = i * (1000 // steps) + 1
        z_t = levels[-1]
        for _ in range(1 + refinements):
            v = exact(z_t, t, encoder_hidden_states=prompt).sample
            eps = abar[t] ** 0.5 * v + (1 - abar[t]) ** 0.5 * z_t
            x0 = (levels[-1] - (1 - left) ** 0.5 * eps) / left**0.5
            z_t = abar[t] ** 0.5 * x0 + (1 - abar[t]) ** 0.5 * eps
        levels.append(z_t)
        left = abar[t]
    return levels


def sampled(
    unet: Any, z: Tensor, positive: Tensor, negative: Tensor, cfg: float, steps: int, velocity: bool = False
) -> Tensor:
    """diffusers' DDIM sampling with guidance."""
    ddim = scheduler(diffusers.DDIMScheduler, steps, velocity)
    prompts = torch.cat([negative, positive])
    for t in ddim.timesteps:
        without, guided = unet(torch.cat([z, z]), t, encoder_hidden_states=prompts).sample.chunk(2)
        z = ddim.step(without + cfg * (guided - without), t, z).prev_sample
    return z


def explicit_attention(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Softmax maps [B, heads, tokens, tokens] in double precision."""
    q, k = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)


def apply_map(attention: Tensor, v: Tensor) -> Tensor:
    """A map on v [B, tokens, heads * dim], in v's own precision."""
    heads = attention.shape[1]
    mixed = attention @ v.double().unflatten(-1, (heads, -1)).transpose(1, 2)
    return mixed.transpose(1, 2).flatten(-2).to(v)


def blended_attention(q: Tensor, k: Tensor, v: Tensor, content: tuple, kappa: float, blend: str, heads: int) -> Tensor:
    """DiffStyler 2026, eq. 5, as written: the content's map and the style's are computed and mixed.

    blend "qk": the other reading, where q and k are mixed and one map is computed.
    """
    q_c, k_c = (x.to(q).expand_as(own) for x, own in zip(content, (q, k), strict=True))
    if blend == "qk":
        q, k = (1 - kappa) * q_c.double() + kappa * q.double(), (1 - kappa) * k_c.double() + kappa * k.double()
        return apply_map(explicit_attention(q, k, heads), v)
    mixed = (1 - kappa) * explicit_attention(q_c, k_c, heads) + kappa * explicit_attention(q, k, heads)
    return apply_map(mixed, v)
