"""The content around the styles at the end of a run, whatever sampler it took (DiffStyler 2026, eq. 7)."""

from __future__ import annotations

import math

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.styles.regions import localize, put_back
from .branches import Composition
from .runs import sigmas_of


def finished(
    model: ModelPatcher, trajectory: Trajectory, composition: Composition, samples: Tensor, last: float
) -> Tensor:
    """A run's result with the content's own latents outside; in the latent's scale where it is a picture.

    last: the noise level that the run ended at. A run that stops before the picture has its soft edges blended by the
    one that goes on.
    """
    picture = math.isclose(last, float(sigmas_of(trajectory.schedule)[-1]), rel_tol=1e-4)
    content = trajectory.content if picture else trajectory.exploding_at(last)
    samples = samples / math.sqrt(1.0 + last**2) if picture else samples
    outside = model.model.process_latent_out(content).to(samples)
    if not composition.branches:
        return outside
    if composition.kept is None:
        return samples
    inside = composition.kept.inside
    return put_back(localize(samples, outside, inside) if picture or last == 0.0 else samples, outside, inside)
