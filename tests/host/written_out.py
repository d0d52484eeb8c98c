"""The method's sampling written out over diffusers' UNet in double precision (DiffStyler 2026, eqs. 4 to 9).

Each style is a row: the UNet with its LoRA in the weights, its prompt, and what it takes of the content's own run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import reference
import torch
from torch import Tensor


class Prompt(NamedTuple):
    """What the UNet is told. pooled, sizes: of SDXL (original, crop and target, height first), else none."""

    context: Tensor
    pooled: Tensor | None = None
    sizes: tuple[int, ...] = ()


def predict(unet: Any, z: Tensor, t: int, prompts: Sequence[Prompt]) -> Tensor:
    """diffusers' prediction for the same z [1, C, H, W] under each prompt, a row each."""
    told: dict[str, Any] = {}
    if prompts[0].pooled is not None:
        pooled = torch.cat([p.pooled for p in prompts]).to(z)
        told = {"text_embeds": pooled, "time_ids": torch.tensor([p.sizes for p in prompts]).to(z)}
    context = torch.cat([p.context for p in prompts]).to(z)
    rows = z.expand(len(prompts), -1, -1, -1)
    return unet(rows, torch.tensor(t), encoder_hidden_states=context, added_cond_kwargs=told).sample


def merged(unet: Any, lora: dict[str, Tensor], strength: float = 1.0) -> Any:
    """diffusers' UNet with a kohya LoRA added to its weights (alpha = rank)."""
    out = copy.deepcopy(unet)
    for name, module in out.named_modules():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.lora_up.weight" in lora:
            up, down = (lora[f"{key}.lora_{part}.weight"].double() for part in ("up", "down"))
            module.weight.data += (strength * up @ down).to(module.weight)
    return out


class Sites(NamedTuple):
    """Decoder layers by LDM's numbers: whose ResBlocks' hidden states and whose self-attentions are taken."""

    features: tuple[int, ...]
    attention: tuple[int, ...]

    def resnets(self, unet: Any) -> list[Any]:
        """The last convolution of each ResBlock: what it puts out before the skip is added."""
        return [block.resnets[entry].conv2 for block, entry in self._entries(unet, self.features)]

    def attentions(self, unet: Any) -> list[Any]:
        """The self-attention of every transformer block there."""
        found = [block.attentions[entry] for block, entry in self._entries(unet, self.attention)]
        return [block.attn1 for transformer in found for block in transformer.transformer_blocks]

    @staticmethod
    def _entries(unet: Any, layers: tuple[int, ...]) -> list[tuple[Any, int]]:
        per_block = len(unet.up_blocks[0].resnets)
        return [(unet.up_blocks[layer // per_block], layer % per_block) for layer in layers]


class Taking(NamedTuple):
    """What a row takes at one step. features: all or none. rate: the content's share of the attention, in [0, 1]."""

    features: bool
    rate: float
    blend: str = "qk"


class Attention:
    """diffusers' self-attention written out; ``mix`` makes it of its own q, k, v. What q and k were is kept."""

    def __init__(self, mix: Callable[..., Tensor] | None = None) -> None:
        self.mix = mix
        self.taken: tuple[Tensor, ...] = ()

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        self.taken = q, k
        own = reference.apply_map(reference.explicit_attention(q, k, attn.heads), v) if self.mix is None else None
        return attn.to_out[0](self.mix(q, k, v, heads=attn.heads) if own is None else own)


@contextmanager
def processed(modules: Sequence[Any], processors: Sequence[Attention]) -> Iterator[None]:
    """The attentions with other processors, until this closes."""
    own = [module.processor for module in modules]
    try:
        for module, processor in zip(modules, processors, strict=True):
            module.processor = processor
        yield
    finally:
        for module, processor in zip(modules, own, strict=True):
            module.processor = processor


@contextmanager
def heard(modules: Sequence[Any], hooks: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Forward hooks on the modules, until this closes."""
    handles = [module.register_forward_hook(hook) for module, hook in zip(modules, hooks, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Content:
    """What the content's own run of a UNet holds at one level: hidden states, and q and k."""

    def __init__(self, unet: Any, sites: Sites, z: Tensor, t: int, prompt: Prompt) -> None:
        self._sites, self.hidden = sites, []
        listening = [Attention() for _ in sites.attentions(unet)]
        keep = [lambda module, args, out: self.hidden.append(out) for _ in sites.resnets(unet)]
        with processed(sites.attentions(unet), listening), heard(sites.resnets(unet), keep):
            predict(unet, z, t, [prompt])
        self.attention = [processor.taken for processor in listening]

    def injected(self, unet: Any, z: Tensor, t: int, prompts: Sequence[Prompt], taking: Taking) -> Tensor:
        """The UNet's prediction with this content in it, in the rows of all prompts."""
        overrides = [lambda module, args, out, own=own: own.expand_as(out) for own in self.hidden]
        mixes = [
            partial(reference.blended_attention, content=own, kappa=1 - taking.rate, blend=taking.blend)
            for own in self.attention
        ]
        modules, resnets = self._sites.attentions(unet), self._sites.resnets(unet)
        attending = processed(modules, list(map(Attention, mixes))) if taking.rate else processed([], [])
        with attending, heard(resnets, overrides) if taking.features else heard([], []):
            return predict(unet, z, t, prompts)


class Row(NamedTuple):
    """One style. unet: at a step. taking: of the content at (step, t). source: whose run of the content (None: base's).

    mask: [h, w] of the latent.
    """

    unet: Callable[[int], Any]
    prompt: Prompt
    taking: Callable[[int, int], Taking]
    mask: Tensor
    source: Any = None


@dataclass(frozen=True)
class Written:
    """Sampling with guidance along a content's path (latents, the noise first) over these timesteps.

    base: what the content was inverted with, and what eq. 8 predicts with outside the masks.
    """

    path: Sequence[Tensor]
    timesteps: Sequence[int]
    sites: Sites
    base: Any
    cfg: float
    velocity: bool = False
    zsnr: bool = False

    def run(
        self, rows: Sequence[Row], source: Prompt, negative: Prompt, outside: str, base_prompt: Prompt | None = None
    ) -> Tensor:
        """outside: "content" (eq. 7) or "regenerate" (eq. 8); any, where the masks leave nothing over."""
        z, inside = self.path[0].double(), sum(row.mask for row in rows)
        total = inside.clamp(min=1e-30) if outside == "content" else torch.ones_like(inside)
        for step, t in enumerate(self.timesteps):
            if outside == "content":
                z = inside * z + (1 - inside) * self.path[step].double()
            out = sum(row.mask / total * self._style(row, step, z, source, negative) for row in rows)
            if outside == "regenerate":
                out = out + (1 - inside) * self._guided(predict(self.base, z, t, [negative, base_prompt]))
            z = self._down(out, z, step)
        return inside * z + (1 - inside) * self.path[-1].double() if outside == "content" else z

    def _style(self, row: Row, step: int, z: Tensor, source: Prompt, negative: Prompt) -> Tensor:
        t = self.timesteps[step]
        content = Content(row.source or self.base, self.sites, self.path[step].double(), t, source)
        return self._guided(content.injected(row.unet(step), z, t, [negative, row.prompt], row.taking(step, t)))

    def _guided(self, rows: Tensor) -> Tensor:
        without, wanted = rows.chunk(2)
        return without + self.cfg * (wanted - without)

    def _down(self, out: Tensor, z: Tensor, step: int) -> Tensor:
        """x0 and eps of a prediction at this step's level, put together at the next one."""
        abar, t, after = reference.cumulative_alphas(self.zsnr), self.timesteps[step], (*self.timesteps, 0)[step + 1]
        a, b = abar[t] ** 0.5, (1 - abar[t]) ** 0.5
        eps = a * out + b * z if self.velocity else out
        x0 = a * z - b * out if self.velocity else (z - b * out) / a
        return abar[after] ** 0.5 * x0 + (1 - abar[after]) ** 0.5 * eps
