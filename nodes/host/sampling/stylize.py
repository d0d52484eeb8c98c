"""The Injected LoRA Sampler's run: DDIM from the content's own noise to the stylised latent (method.md section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion import ddim
from ....diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.adain import adain_latent
from ....diffstyler_core.styles.kept import KeptContent
from ..checks.conditioning import Conditioning
from ..checks.latents import some_latents
from .branches import Branch, Composition
from .guider import InjectedGuider
from .runs import run_guider, sigmas_of, to_exploding, to_preserving


def sample_injected(
    model: ModelPatcher,
    trajectory: Trajectory,
    composition: Composition,
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    start: Tensor,
    name: str = "step",
) -> Tensor:
    """DDIM sampling of ``start`` (a LATENT's samples at the noisiest level) -> the stylised latent's samples.

    Without any style that covers anything the result is the content, and no evaluation is made. name: of a step.
    """
    schedule, kept = trajectory.schedule, composition.kept
    if not composition.branches:
        return model.model.process_latent_out(trajectory.content)

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        start, show = to_preserving(x, schedule), partial(_show, on_step, kept)
        z = ddim.sample(denoise, start, schedule, show, noises=trajectory.noises)
        return z * math.sqrt(1.0 + float(sigmas_of(schedule)[-1]) ** 2)

    guider = InjectedGuider(model, trajectory, composition, adds_noises=False)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return run_guider(guider, start, run, schedule, schedule.steps, name)


def _show(on_step: OnStep, kept: KeptContent | None, step: int, steps: int, x0: Tensor) -> None:
    """The preview of a step: with the content around the styles, where it is kept."""
    on_step(step, steps, x0 if kept is None else kept.blended(x0))


def choose_start(
    model: ModelPatcher, trajectory: Trajectory, latent: dict[str, Any] | None, branches: Sequence[Branch] = ()
) -> Tensor:
    """The samples that sampling starts from: the trajectory's x_T, or a LATENT of the same size.

    x_T takes the mean and contrast of the style pictures that ask for it, each by its branch's share.
    """
    if latent is None:
        start = trajectory.noise
        for branch in branches:
            if branch.reference is not None and branch.reference.plan.method.adain_start:
                style = branch.reference.style.capture.trajectory.noise
                start = start + adain_latent(trajectory.noise, style, branch.share) - trajectory.noise
        return model.model.process_latent_out(to_exploding(start, trajectory.schedule))
    samples = some_latents(latent, model, "start_latent")
    if samples.shape != trajectory.noise.shape:
        raise ValueError(
            f"start_latent: {list(samples.shape)} does not fit the trajectory's {list(trajectory.noise.shape)}. "
            "Use the x_T of DDIM Invert or CycleDiffusion Invert, or a latent of the content's size."
        )
    return samples


def start_notes(branches: Sequence[Branch], why: str) -> list[str]:
    """A line where a style asks for AdaIN of a start that is not changed; why: the reason."""
    asks = any(b.reference is not None and b.reference.plan.method.adain_start for b in branches)
    return [f"note: adain_start of the style is not applied; {why}"] if asks else []
