"""Ways to look into a run from outside: counting evaluations, and proving that nothing was left behind."""

from __future__ import annotations

import gc
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel


def counting(model: Any) -> tuple[Any, list[int]]:
    """(a clone of the MODEL, the rows of each UNet evaluation it makes from now on)."""
    rows: list[int] = []

    def wrapper(executor, x, *args, **kwargs):
        rows.append(x.shape[0])
        return executor(x, *args, **kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "counting", wrapper)
    return clone, rows


def picture_of(value: Any) -> Any:
    """What can be compared later: containers as plain ones, tensors as copies of their bits, the rest by identity."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype, value.detach().float().contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {key: picture_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [picture_of(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else id(value)


def state_of(model: Any) -> dict[str, Any]:
    """Everything of a MODEL that a run could leave a trace in."""
    own = ("model_options", "patches", "object_patches", "wrappers", "callbacks", "injections", "attachments")
    modules = {
        name: (
            type(module).__qualname__,
            "forward" in module.__dict__,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            module.training,
        )
        for name, module in model.model.named_modules()
    }
    weights = {name: (p.requires_grad, picture_of(p)) for name, p in model.model.named_parameters()}
    return {**{name: picture_of(getattr(model, name)) for name in own}, "modules": modules, "weights": weights}


class Ending:
    """Lets UNet forwards of any model pass, then raises or has Cancel pressed at one of them."""

    def __init__(self, monkeypatch: Any) -> None:
        self.rows: list[int] = []
        self.how, self.at = "completes", 0
        forward = UNetModel._forward

        def watched(unet, x, *args, **kwargs):
            self.rows.append(x.shape[0])
            if self.how == "error" and len(self.rows) == self.at:
                raise RuntimeError("the UNet broke")
            if self.how == "interrupt" and len(self.rows) == self.at:
                comfy.model_management.interrupt_current_processing()
            return forward(unet, x, *args, **kwargs)

        monkeypatch.setattr(UNetModel, "_forward", watched)

    def plan(self, how: str, at: int) -> None:
        """From now on: 'completes', or 'error' / 'interrupt' at the forward ``at``, counted from 1."""
        self.rows.clear()
        self.how, self.at = how, at


def lora_matrices(pack) -> list:
    """What holds LoRAs' matrices on the computing device: of each run that has not ended, one."""
    gc.collect()
    return [held for held in gc.get_objects() if isinstance(held, pack.core.lora.low_rank.Factors)]
