"""The content's latent walked up to noise and sampled back, inside the host's sampling machinery."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion import ddim
from ....diffstyler_core.diffusion.ddim import AtLevel, Denoiser, OnStep, unchanged
from ....diffstyler_core.diffusion.schedule import NoiseSchedule
from ....diffstyler_core.diffusion.trajectory import Trajectory, invert
from ..checks.conditioning import Conditioning
from ..identity import identity
from ..model import family_of
from .runs import SourceGuider, run_guider, to_exploding, to_preserving


class Inversion:
    """The walk up to noise as a run inside the host's sampling machinery; ``trajectory`` is there once it has run."""

    trajectory: Trajectory

    def __init__(self, schedule: NoiseSchedule, refinements: int, family: str, source: str) -> None:
        self._schedule, self._refinements = schedule, refinements
        self._family, self._source = family, source

    def __call__(self, denoise: Denoiser, z: Tensor, on_step: OnStep) -> Tensor:
        """x_T of the latent z, in the host's scale."""
        self.trajectory = invert(denoise, z, self._schedule, self._refinements, on_step, self._family, self._source)
        return to_exploding(self.trajectory.noise.to(z), self._schedule)


def invert_latent(
    model: ModelPatcher,
    latent: Tensor,
    conditioning: Conditioning,
    schedule: NoiseSchedule,
    refinements: int,
    name: str = "step",
) -> tuple[Trajectory, Tensor]:
    """(trajectory, x_T as a LATENT's samples that KSampler continues from without adding noise). name: of a step."""
    inversion = Inversion(schedule, refinements, family_of(model), identity(conditioning))
    guider = SourceGuider(model)
    guider.set_source(conditioning)
    x_T = run_guider(guider, latent, inversion, schedule, len(schedule.ascent()), name)
    return inversion.trajectory, x_T


def reconstruct_latent(
    model: ModelPatcher,
    x_T: Tensor,
    conditioning: Conditioning,
    schedule: NoiseSchedule,
    at_level: AtLevel = unchanged,
    name: str = "reconstruction step",
) -> Tensor:
    """The content sampled back from x_T with its own conditioning and no guidance. S evaluations.

    at_level: sees, and may change, z at every level in the host's scale, variance-preserving.
    """

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        return ddim.sample(denoise, to_preserving(x, schedule), schedule, on_step, at_level)

    guider = SourceGuider(model)
    guider.set_source(conditioning)
    return run_guider(guider, x_T, run, schedule, schedule.steps, name)
