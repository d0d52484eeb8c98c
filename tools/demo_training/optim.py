"""Optimiser, averaging and clock shared by both trainings."""

import math
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(update: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration of Muon (Jordan et al. 2024): nearest half-orthogonal matrix of [m, n]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update / (update.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Muon for conv and linear weights, scaled so that AdamW's learning rates carry over.

    A kernel [out, in, h, w] is treated as the matrix [out, in*h*w].
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                direction = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                matrix = orthogonalise(direction)
                scale = 0.2 * math.sqrt(max(matrix.shape))
                p.add_(matrix.reshape(p.shape), alpha=-group["lr"] * scale)


class Optimisers:
    """Muon for the matrices inside, AdamW for the rest, one learning rate for both."""

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter]) -> None:
        self.parts = [Muon(matrices, 1.0), torch.optim.AdamW(others, 1.0, weight_decay=0.0, betas=(0.9, 0.98))]
        self.parameters = matrices + others

    def step(self, lr: float, clip: float = 1.0) -> None:
        nn.utils.clip_grad_norm_(self.parameters, clip)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


class Average:
    """Exponential moving average of parameters, rate rising as (1 + n) / (10 + n) up to `rate`."""

    def __init__(self, module: nn.Module, rate: float = 0.999) -> None:
        self.rate, self.n = rate, 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.n += 1
        rate = min(self.rate, (1 + self.n) / (10 + self.n))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - rate)
            else:
                self.values[key].copy_(value)

    def state_dict(self) -> dict:
        return {"n": self.n, "values": self.values}

    def load_state_dict(self, state: dict) -> None:
        self.n, self.values = state["n"], state["values"]


class Clock:
    """Share of the minutes already trained, kept across interruptions."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.total, self.spent, self.last = minutes * 60, spent, time.monotonic()

    def share(self) -> float:
        """0 at the start, 1 when the time is used up."""
        now = time.monotonic()
        self.spent += now - self.last
        self.last = now
        return min(1.0, self.spent / self.total)


def learning_rate(peak: float, share: float, step: int, warm_up: int = 50) -> float:
    """Linear warm-up by steps, flat half of the time, then linearly to 0."""
    return peak * min(1.0, (step + 1) / warm_up) * min(1.0, 2 * (1 - share)) + 1e-8
