"""StyleID and shared attention written out over diffusers' UNet: its attention processors, its own loops."""

from __future__ import annotations

from typing import Any

import diffusers
import reference
import torch
from torch import Tensor

Held = dict[str, tuple[Tensor, Tensor, Tensor]]


class Looking:
    """An attention processor with the map written out. record: takes q, k, v; change: what is attended instead."""

    def __init__(self, name: str, at: dict[str, Any]) -> None:
        self.name, self.at = name, at

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_: Any) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        if "record" in self.at:
            self.at["record"][self.name] = (q, k, v)
        if "change" in self.at:
            q, k, v = self.at["change"](self.name, q, k, v)
        return attn.to_out[0](reference.apply_map(reference.explicit_attention(q, k, attn.heads), v))


def watched(unet: Any, layers: tuple[int, ...]) -> dict[str, Any]:
    """Puts processors on the self-attention of these decoder layers; what they do is said in the dict returned."""
    at: dict[str, Any] = {}
    per_block = unet.config.layers_per_block + 1
    wanted = [f"up_blocks.{n // per_block}.attentions.{n % per_block}." for n in layers]
    processors = dict(unet.attn_processors)
    for name in processors:
        if name.startswith(tuple(wanted)) and ".attn1." in name:
            processors[name] = Looking(name, at)
    unet.set_attn_processor(processors)
    return at


def held_along(unet: Any, at: dict[str, Any], levels: list[Tensor], prompt: Tensor, timesteps: Tensor) -> list[Held]:
    """What the picture's own run holds at (z_t, t) of every step; ``levels`` as ``reference.inverted`` gives them."""
    out = []
    for step, t in enumerate(timesteps):
        at["record"] = {}
        unet(levels[len(levels) - 1 - step], t, encoder_hidden_states=prompt)
        out.append(at.pop("record"))
    return out


def adain(x: Tensor, style: Tensor, dims: tuple[int, ...]) -> Tensor:
    """One tensor with another's mean and standard deviation, in double precision."""
    x, s = x.double(), style.double()
    scaled = (x - x.mean(dims, keepdim=True)) / x.std(dims, keepdim=True)
    return (scaled * s.std(dims, keepdim=True) + s.mean(dims, keepdim=True)).float()


def style_id(content: Held, style: Held, gamma: float, tau: float):
    """The change of StyleID at one step."""

    def change(name: str, q: Tensor, k: Tensor, v: Tensor):
        _, k_s, v_s = (x.expand(len(q), -1, -1) for x in style[name])
        return tau * (gamma * content[name][0] + (1 - gamma) * q), k_s, v_s

    return change


def shared(style: Held, extend: bool, normalise: bool):
    """The change of shared attention at one step."""

    def change(name: str, q: Tensor, k: Tensor, v: Tensor):
        q_s, k_s, v_s = (x.expand(len(q), -1, -1) for x in style[name])
        if normalise:
            q, k = adain(q, q_s, (1,)), adain(k, k_s, (1,))
        return (q, torch.cat([k, k_s], 1), torch.cat([v, v_s], 1)) if extend else (q, k_s, v_s)

    return change


def sampled(unet, at, changes: list, z: Tensor, positive: Tensor, negative: Tensor, cfg: float, velocity: bool):
    """diffusers' DDIM sampling with guidance, each step under its change."""
    ddim = reference.scheduler(diffusers.DDIMScheduler, len(changes), velocity)
    for change, t in zip(changes, ddim.timesteps, strict=True):
        at["change"] = change
        without, guided = unet(
            torch.cat([z, z]), t, encoder_hidden_states=torch.cat([negative, positive])
        ).sample.chunk(2)
        z = ddim.step(without + cfg * (guided - without), t, z).prev_sample
        at.pop("change")
    return z
