"""A LoRA's training as a plain script over diffusers and peft does it: nothing of the pack, the host or the nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

TARGETS = r".*\.attn[12]\.to_[qkv]"


class PlainTraining(NamedTuple):
    """Settings of one training; the others are AdamW's own. velocity: the model predicts v. alpha is the rank."""

    steps: int
    learning_rate: float
    velocity: bool
    rank: int = 16
    weight_decay: float = 1e-2
    seed: int = 0

    def train(self, unet: Any, latents: Callable[[], Tensor], prompt: Callable[[], Tensor]) -> list[float]:
        """Puts a LoRA into diffusers' UNet, trains it in place. -> the loss of every step

        latents, prompt: z_0 [1, C, h, w] and the prompt's embedding, asked for at each step.
        """
        parameters = add_lora(unet, self.rank, self.seed)
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        abar, losses = cumulative_alphas().float(), []
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.steps):
            z0 = latents()
            noise = torch.randn(z0.shape, generator=generator)
            t = torch.randint(0, 1000, (len(z0),), generator=generator)
            a, b = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
            output = unet(a * z0 + b * noise, t, encoder_hidden_states=prompt()).sample
            loss = torch.nn.functional.mse_loss(output, a * noise - b * z0 if self.velocity else noise)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach().item())
        return losses


def add_lora(unet: Any, rank: int, seed: int = 0) -> list[Tensor]:
    """Fresh peft LoRA layers on q, k and v of every attention. -> what is trained"""
    import peft

    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
        peft.inject_adapter_in_model(settings, unet)
    return [p for p in unet.parameters() if p.requires_grad]


def cumulative_alphas() -> Tensor:
    """Stable Diffusion's table [1000] in double precision."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)
