"""Where a run begins that is given x_T: on the content's path, at whatever noise level its scheduler begins."""

from __future__ import annotations

import math

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.between import SAME
from .runs import to_exploding

CLOSE = 1e-4
"""Of the largest entry: how far x_T may be from itself after the host's scaling out and in, and a file or two."""


def on_the_path(model: ModelPatcher, trajectory: Trajectory, noise: Tensor, latent: Tensor, sigmas: Tensor) -> Tensor:
    """The latent [B, C, H, W] that a run over ``sigmas`` starts from.

    x_T is the content's noise at the trajectory's first level. Most schedulers begin at the model's noisiest one, where
    x_T has a tenth too little noise, which a sampler takes for a picture of low contrast. So where no noise is added
    and the latent is x_T (of each picture of a batch), the run starts from the content's path at its own first level
    (``Trajectory.exploding_at``). Every other latent is the person's own, and returned as it is.
    """
    first, schedule = float(sigmas[0]), trajectory.schedule
    if first <= 0.0 or abs(math.log(first / schedule.sigma(schedule.timesteps[0]))) < SAME or noise.any():
        return latent
    known = model.model.process_latent_out(to_exploding(trajectory.noise, schedule)).to(latent)
    if not (latent - known).abs().max() <= CLOSE * known.abs().max():  # NaN is no x_T either
        return latent
    return model.model.process_latent_out(trajectory.exploding_at(first)).to(latent).expand_as(latent)
