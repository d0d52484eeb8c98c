"""Training on the diffusion loss (DiffStyler 2026, eq. 3; method.md section 1): of a style LoRA, or of what else."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from einops import reduce
from torch import Tensor

from ..diffusion.schedule import Prediction
from ..lora.file import LowRank
from .config import TrainConfig
from .layers import Layers, extract

log = logging.getLogger(__name__)
FUSED = ("cpu", "cuda")
"""Devices that have PyTorch's fused AdamW."""


@dataclass(frozen=True)
class Course:
    """The loss of every step, and the step at which a training broke off (None: it did not)."""

    losses: list[float]
    stopped_at: int | None = None


@dataclass(frozen=True)
class TrainResult:
    """A trained LoRA per module path, the loss of every step, and the step at which it broke off (None: it did not)."""

    lora: dict[str, LowRank]
    losses: list[float] = field(default_factory=list)
    stopped_at: int | None = None


class Settings(Protocol):
    """What a training must know of its settings."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


class Predict(Protocol):
    """The UNet with its conditioning: z_t [B, C, H, W], timesteps [B] -> eps or v [B, C, H, W]."""

    def __call__(self, z: Tensor, t: Tensor) -> Tensor: ...


DrawLatents = Callable[[int, torch.Generator], Tensor]
"""(batch size, generator) -> scaled latents z_0 [B, C, H, W] on the training device."""

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


def train(
    layers: Layers,
    predict: Predict,
    draw: DrawLatents,
    abar: Tensor,
    prediction: Prediction,
    config: TrainConfig,
    on_step: OnTrainStep,
) -> TrainResult:
    """``optimize`` on the LoRA layers."""
    parameters = [p for m in layers.values() for p in m.parameters() if p.requires_grad]
    course = optimize(parameters, predict, draw, abar, prediction, config, on_step)
    return TrainResult(extract(layers), course.losses, course.stopped_at)


def optimize(
    parameters: Sequence[Tensor],
    predict: Predict,
    draw: DrawLatents,
    abar: Tensor,
    prediction: Prediction,
    config: Settings,
    on_step: OnTrainStep,
) -> Course:
    """AdamW on what is trained, in place: one forward and backward a step, constant learning rate.

    Stops before the first update that would not be finite: the parameters are then the last good ones and
    ``stopped_at`` names the step. What ``on_step`` raises ends the training and passes through.
    """
    fused = all(p.device.type in FUSED for p in parameters)  # one call for all of a LoRA's small tensors
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    generator = torch.Generator().manual_seed(config.seed)
    losses: list[float] = []
    for step in range(config.steps):
        rows = diffusion_loss(predict, draw(config.batch_size, generator), abar, prediction, generator)
        optimizer.zero_grad(set_to_none=True)
        loss = rows.mean()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        value, size = torch.stack([loss.detach(), norm.to(loss)]).tolist()  # one wait for the device
        if not (math.isfinite(value) and math.isfinite(size)):
            log.error("Training stopped at step %d: the loss is %s.", step, value)
            return Course(losses, stopped_at=step)
        optimizer.step()
        losses.append(value)
        on_step(step, config.steps, value)
    return Course(losses)
