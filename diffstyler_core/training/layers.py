"""peft's LoRA layers in a network of our own: put in, read out, and made to keep fewer activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..lora.file import LowRank
from .config import TrainConfig

OF_THE_PROMPT = ("attn2.to_k", "attn2.to_v")
"""Cross-attention's projections of the prompt."""

Layers = dict[str, Any]
"""peft's LoRA layers by module path."""


def adapt(unet: nn.Module, config: TrainConfig) -> Layers:
    """Puts fresh peft LoRA layers (fp32, nothing else trainable) into ``unet``, which must be a private copy.

    Returns them by module path. Raises ValueError when no module matches the targets.
    """
    import peft  # seconds to import, and pulls transformers in

    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=config.target_pattern,
        init_lora_weights="gaussian",
        bias="none",
    )
    unet.requires_grad_(False)
    if not any(name.endswith(config.targets) for name, _ in unet.named_modules() if ".attn" in name):
        raise ValueError(f"this model has no attention projections {config.targets} to train.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        peft.inject_adapter_in_model(settings, unet)
    layers: Layers = {name: m for name, m in unet.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    for name, layer in layers.items():
        layer.lora_A.float()
        layer.lora_B.float()
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        base = _Once(layer.base_layer) if name.endswith(OF_THE_PROMPT) else layer.base_layer
        layer.forward = partial(_adapted, base, down, up, layer.scaling["default"])
    return layers


class _Once:
    """A frozen layer, which is not run again on the tensor that it was run on last: a prompt that is not trained."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._given: Tensor | None = None
        self._gave: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            made: Tensor = self._layer(x)
            return made
        if self._gave is None or x is not self._given:
            self._given, self._gave = x, self._layer(x)
        return self._gave


def _adapted(base: Callable[[Tensor], Tensor], down: Tensor, up: Tensor, scale: float, x: Tensor) -> Tensor:
    """What peft's layer computes for its only adapter, with the sum as part of the second product."""
    out: Tensor = base(x)
    low = functional.linear(x.to(down.dtype), down)
    if out.dtype != up.dtype:  # half precision: the LoRA acts in fp32
        return (out + functional.linear(low, up) * scale).to(out.dtype)
    rows = torch.addmm(out.flatten(0, -2), low.flatten(0, -2), up.t(), alpha=scale)
    return rows.view_as(out)


def extract(layers: Layers) -> dict[str, LowRank]:
    """The LoRA weights of ``adapt``'s layers, copied to the CPU."""

    def weight(part: Any) -> Tensor:
        return part["default"].weight.detach().cpu().clone()

    return {name: LowRank(weight(layer.lora_A), weight(layer.lora_B)) for name, layer in layers.items()}


@contextmanager
def checkpointed(modules: Iterator[nn.Module], enabled: bool) -> Iterator[None]:
    """Recomputes the modules' activations in the backward pass instead of keeping them."""
    wrapped: list[nn.Module] = []
    try:
        for module in modules if enabled else ():
            forward = module.forward
            module.forward = partial(checkpoint, forward, use_reentrant=False)
            wrapped.append(module)
        yield
    finally:
        for module in wrapped:
            del module.forward
