"""Apply Injection and Apply Styles with short defaults, and the host's own samplers behind them."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import steps
import torch

import nodes as host_nodes


def injected(pack, model, features, between="interpolated", **settings: Any):
    """The MODEL of Apply Injection, at the windows of ``steps.sample``."""
    given = steps.custom(features.trajectory.schedule.steps, settings)
    node = pack.pipeline.apply_injection.ApplyInjection
    return node.execute(model=model, features=features, between=between, **given).args[0]


def styled(pack, model, features, styles, between="interpolated", **settings: Any):
    """The MODEL of Apply Styles."""
    run = features if hasattr(features, "schedule") else features.trajectory
    given = steps.custom(run.schedule.steps, {"outside": "content", "mask_grow": 0, "mask_feather": 0, **settings})
    node = pack.pipeline.apply_styles.ApplyStyles
    return node.execute(model=model, features=features, styles=styles, between=between, **given).args[0]


def own_levels(trajectory) -> torch.Tensor:
    """The trajectory's noise levels as SIGMAS, the picture's last."""
    schedule = trajectory.schedule
    return torch.tensor([schedule.sigma(t) for t in (*schedule.timesteps, 0)])


def at_own_levels(model, trajectory, positive, negative, cfg=3.0, latent=None):
    """Samples of the host's euler from x_T over the trajectory's own levels, in the latent's scale."""
    sigmas = own_levels(trajectory)
    if latent is None:
        latent = model.model.process_latent_out(trajectory.noise * (1 + sigmas[0] ** 2).sqrt())
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(torch.zeros_like(latent), latent, comfy.samplers.ksampler("euler"), sigmas, disable_pbar=True)


def ksampler(model, positive, negative, latent, sampler="euler", scheduler="normal", count=5, cfg=3.0, **changes: Any):
    """Samples of the host's KSampler (Advanced)."""
    return host_nodes.common_ksampler(
        model, changes.pop("seed", 7), count, cfg, sampler, scheduler, positive, negative, latent, **changes
    )[0]["samples"]
