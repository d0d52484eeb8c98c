"""Style LoRA training over peft (DiffStyler 2026, eq. 3; method.md section 1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from einops import reduce
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..diffusion.schedule import Prediction
from ..lora.file import LowRank

log = logging.getLogger(__name__)

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
BOUNDS: dict[str, tuple[float, float]] = {
    "rank": (1, 1024),
    "alpha": (0.01, 4096.0),
    "steps": (1, 100_000),
    "learning_rate": (1e-8, 1.0),
    "weight_decay": (0.0, 1.0),
    "seed": (0, 2**64 - 1),
    "resolution": (64, 4096),
    "batch_size": (1, 64),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training; the defaults are the paper's.

    targets: projections of attn1 and attn2 that get a LoRA. resolution: pixels. seed: noise, timesteps, first weights.
    """

    rank: int = 16
    alpha: float = 16.0
    steps: int = 200
    learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    seed: int = 0
    resolution: int = 512
    batch_size: int = 1
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v")
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # false for NaN as well
                bounds = "..".join(f"{x}" if isinstance(x, int) else f"{x:g}" for x in (low, high))
                raise ValueError(f"{name} must lie in {bounds}, got {value!r}.")
        unknown = [t for t in self.targets if t not in PROJECTIONS]
        if unknown or not self.targets:
            raise ValueError(f"targets must be some of {PROJECTIONS}, got {self.targets}.")

    @property
    def target_pattern(self) -> str:
        """Regular expression of the module paths that get a LoRA."""
        return r".*\.attn[12]\.(" + "|".join(t.replace(".", r"\.") for t in self.targets) + ")"


@dataclass(frozen=True)
class TrainResult:
    """A trained LoRA per module path, the loss of every step, and the step at which it broke off (None: it did not)."""

    lora: dict[str, LowRank]
    losses: list[float] = field(default_factory=list)
    stopped_at: int | None = None


class Predict(Protocol):
    """The UNet with its conditioning: z_t [B, C, H, W], timesteps [B] -> eps or v [B, C, H, W]."""

    def __call__(self, z: Tensor, t: Tensor) -> Tensor: ...


DrawLatents = Callable[[int, torch.Generator], Tensor]
"""(batch size, generator) -> scaled latents z_0 [B, C, H, W] on the training device."""

Layers = dict[str, Any]
"""peft's LoRA layers by module path."""

OnTrainStep = Callable[[int, int, float], None]
"""Called after each step with (step from 0, number of steps, loss); may raise to stop."""


def diffusion_loss(
    predict: Predict, z0: Tensor, abar: Tensor, prediction: Prediction, generator: torch.Generator
) -> Tensor:
    """Mean squared error between prediction and target at drawn timesteps, per row [B] (eq. 3).

    abar: table [T] on z0's device. The target is the noise, or the velocity for v-prediction models.
    """
    noise = torch.randn(z0.shape, generator=generator).to(z0)
    t = torch.randint(0, abar.shape[0], (z0.shape[0],), generator=generator).to(z0.device)
    a = abar[t].sqrt().view(-1, 1, 1, 1).to(z0)
    b = (1.0 - abar[t]).sqrt().view(-1, 1, 1, 1).to(z0)
    target = a * noise - b * z0 if prediction == "v" else noise
    return reduce((predict(a * z0 + b * noise, t) - target).square(), "b c h w -> b", "mean")


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
    for layer in layers.values():
        layer.lora_A.float()
        layer.lora_B.float()
    return layers


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


def train(
    layers: Layers,
    predict: Predict,
    draw: DrawLatents,
    abar: Tensor,
    prediction: Prediction,
    config: TrainConfig,
    on_step: OnTrainStep,
) -> TrainResult:
    """AdamW on the LoRA layers, one forward and backward a step, constant learning rate.

    Stops before the first update that would not be finite: the weights are then the last good ones and
    ``stopped_at`` names the step. What ``on_step`` raises ends the training and passes through.
    """
    parameters = [p for m in layers.values() for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    losses: list[float] = []
    for step in range(config.steps):
        rows = diffusion_loss(predict, draw(config.batch_size, generator), abar, prediction, generator)
        optimizer.zero_grad(set_to_none=True)
        loss = rows.mean()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (math.isfinite(loss.item()) and torch.isfinite(norm)):
            log.error("Training stopped at step %d: the loss is %s.", step, loss.item())
            return TrainResult(extract(layers), losses, stopped_at=step)
        optimizer.step()
        losses.append(loss.item())
        on_step(step, config.steps, losses[-1])
    return TrainResult(extract(layers), losses)
