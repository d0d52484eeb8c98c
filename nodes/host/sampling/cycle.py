"""CycleDiffusion's encoder and its way back, inside the host's sampling machinery."""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion import ddim
from ....diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ....diffstyler_core.diffusion.encoder import encode
from ....diffstyler_core.diffusion.schedule import NoiseSchedule
from ....diffstyler_core.diffusion.stochastic import Formula
from ....diffstyler_core.diffusion.trajectory import Trajectory
from ..checks.conditioning import Conditioning
from ..identity import identity
from ..model import family_of
from .runs import guided_source, run_guider, to_exploding, to_preserving


class SourcePrompts(NamedTuple):
    """What the content is predicted with. negative: needed where cfg is not 1."""

    conditioning: Conditioning
    negative: Conditioning | None = None
    cfg: float = 1.0


class Encoding:
    """The encoder as a run inside the host's sampling machinery; ``trajectory`` is there once it has run."""

    trajectory: Trajectory

    def __init__(
        self, schedule: NoiseSchedule, eta: float, formula: Formula, seed: int, names: tuple[str, str]
    ) -> None:
        self._schedule, self._eta, self._formula = schedule, eta, formula
        self._seed, self._names = seed, names

    def __call__(self, denoise: Denoiser, z: Tensor, on_step: OnStep) -> Tensor:
        """x_T of the latent z, in the host's scale."""
        generator = torch.Generator().manual_seed(self._seed)
        made = encode(denoise, z, self._schedule, self._eta, self._formula, generator, on_step, *self._names)
        self.trajectory = made
        return to_exploding(made.noise.to(z), self._schedule)


def encode_latent(
    model: ModelPatcher,
    latent: Tensor,
    prompts: SourcePrompts,
    schedule: NoiseSchedule,
    eta: float,
    formula: Formula,
    seed: int,
) -> tuple[Trajectory, Tensor]:
    """(trajectory with noises, x_T as a LATENT's samples). S evaluations of one row, or two with guidance."""
    encoding = Encoding(schedule, eta, formula, seed, (family_of(model), identity(prompts.conditioning)))
    x_T = run_guider(guided_source(model, *prompts), latent, encoding, schedule, schedule.steps)
    return encoding.trajectory, x_T


def decode_latent(model: ModelPatcher, x_T: Tensor, prompts: SourcePrompts, trajectory: Trajectory) -> Tensor:
    """The content sampled back with its own prompts and the trajectory's noises. S evaluations."""
    schedule = trajectory.schedule

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        return ddim.sample(denoise, to_preserving(x, schedule), schedule, on_step, noises=trajectory.noises)

    guider = guided_source(model, *prompts)
    return run_guider(guider, x_T, run, schedule, schedule.steps, "reconstruction step")
