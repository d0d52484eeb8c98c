"""The method as a plain script over diffusers does it, organised as its original implementation is.

Written from the papers' equations. One UNet for each LoRA beside the base; at every step each of them is given three
rows: the content's latent with the empty prompt, the negative prompt and the positive one; every latent of the
inversion goes through a file. Nothing of the pack, the host or its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tools.bench.plain_training import cumulative_alphas

FEATURE, ATTENTION = 4, range(4, 12)
"""Decoder layers, as the papers number them."""
FEATURE_SHARE, ATTENTION_SHARE = 0.6, 0.5
"""How much of the run each is injected in."""


@dataclass(frozen=True)
class PlainMethod:
    """folder: of the latents. velocity: the models predict v. empty, negative, positive: embeddings [1, tokens, D]."""

    folder: Path
    velocity: bool
    empty: Tensor
    negative: Tensor
    positive: Tensor
    cfg: float
    steps: int
    abar: Sequence[float] = tuple(cumulative_alphas().tolist())

    @property
    def timesteps(self) -> list[int]:
        """Of the sampling, noisiest first: DDIM's leading spacing, offset 1."""
        return [i * (1000 // self.steps) + 1 for i in reversed(range(self.steps))]

    def invert(self, unet: Any, z: Tensor, every: int = 0) -> int:
        """Writes the content's latent at each level that is visited. -> UNet evaluations

        every: 1 visits all 999 timesteps on the way up, and all of them down again; n each n-th. 0: the sampling's own
        alone, and only up. Raises ValueError where the sampling's own are not among them.
        """
        visited = list(range(1, 1000, every)) if every else self.timesteps[::-1]
        if not set(self.timesteps) <= set(visited):
            raise ValueError(f"every {every}th timestep leaves out some of the {self.steps} that are sampled.")
        before = 0
        self._write(0, z)
        for t in visited:
            z = self._moved(self._predicted(unet, z, t, self.empty), z, t, before, t)
            self._write(t, z)
            before = t
        if every:
            for t, after in zip(visited[::-1], [*visited[-2::-1], 0], strict=True):
                z = self._moved(self._predicted(unet, z, t, self.empty), z, t, t, after)
        return 2 * len(visited) if every else len(visited)

    def sample(self, unets: Sequence[Any], masks: Sequence[Tensor | float]) -> Tensor:
        """The result's latent. unets: the base, then one with each LoRA. masks: a weight for each of them."""
        times = self.timesteps
        z = self._read(times[0])
        for step, t in enumerate(times):
            features, attention = step < FEATURE_SHARE * self.steps, step < ATTENTION_SHARE * self.steps
            source, fused = self._read(t), torch.zeros_like(z)
            for unet, mask in zip(unets, masks, strict=True):
                with injected(unet, features, attention):
                    prompts = torch.cat([self.empty, self.negative, self.positive])
                    _, without, wanted = self._predicted(unet, torch.cat([source, z, z]), t, prompts).chunk(3)
                fused += mask * (without + self.cfg * (wanted - without))
            z = self._moved(fused, z, t, t, (*times, 0)[step + 1])
        return z

    def _predicted(self, unet: Any, z: Tensor, t: int, prompts: Tensor) -> Tensor:
        output: Tensor = unet(z, torch.tensor(t), encoder_hidden_states=prompts).sample
        return output

    def _moved(self, output: Tensor, z: Tensor, t: int, start: int, end: int) -> Tensor:
        """z from level ``start`` to level ``end`` by what the network said when it was told t."""
        abar = self.abar
        eps = abar[t] ** 0.5 * output + (1 - abar[t]) ** 0.5 * z if self.velocity else output
        x0 = (z - (1 - abar[start]) ** 0.5 * eps) / abar[start] ** 0.5
        return abar[end] ** 0.5 * x0 + (1 - abar[end]) ** 0.5 * eps

    def _write(self, t: int, z: Tensor) -> None:
        torch.save(z, self.folder / f"latents_{t}.pt")

    def _read(self, t: int) -> Tensor:
        z: Tensor = torch.load(self.folder / f"latents_{t}.pt", weights_only=True)
        return z


class SourceAttention:
    """diffusers' attention, in which all rows take the first row's q and k."""

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        q, k = (x[:1].expand_as(x) for x in (q, k))
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        out: Tensor = attn.to_out[0](scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return out


@contextmanager
def injected(unet: Any, features: bool, attention: bool) -> Iterator[None]:
    """The first row's features and self-attention act in all rows while this is open."""
    per_block = len(unet.up_blocks[0].resnets)
    places = [(unet.up_blocks[layer // per_block], layer % per_block) for layer in ATTENTION if attention]
    attentions = [transformer.attn1 for block, i in places for transformer in block.attentions[i].transformer_blocks]
    own = [module.processor for module in attentions]
    conv = unet.up_blocks[FEATURE // per_block].resnets[FEATURE % per_block].conv2
    handle = conv.register_forward_hook(_first_row) if features else None
    try:
        for module in attentions:
            module.processor = SourceAttention()
        yield
    finally:
        for module, processor in zip(attentions, own, strict=True):
            module.processor = processor
        if handle is not None:
            handle.remove()


def _first_row(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    return out[:1].expand_as(out)


def merged(unet: Any, lora: dict[str, Tensor], strength: float = 1.0) -> None:
    """Adds a LoRA in kohya's form (alpha = rank) to the weights of diffusers' UNet, in place."""
    for name, module in unet.named_modules():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.lora_up.weight" in lora:
            up, down = lora[f"{key}.lora_up.weight"], lora[f"{key}.lora_down.weight"]
            module.weight.data += strength * (up @ down).to(module.weight)


def whole_picture(count: int) -> list[float]:
    """Masks of one style all over the picture: nothing of the base, all of the LoRA."""
    return [0.0, *[1.0 / count] * count]
