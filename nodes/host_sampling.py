"""Running the core's loops inside the host's guider and sampler machinery.

Model loading, memory, previews, interrupts, ControlNet and other packs' wrappers work because it is the host that
calls the UNet. Latents cross this border in the host's scale (``process_latent_in``), noise levels as sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.samplers
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..diffstyler_core.capture import Capture
from ..diffstyler_core.ddim import Denoiser, OnStep
from ..diffstyler_core.plan import InjectionPlan
from ..diffstyler_core.schedule import NoiseSchedule
from ..diffstyler_core.sites import Site
from ..diffstyler_core.taps import Injector, Recorder, SiteTensors, Tap
from ..diffstyler_core.trajectory import Trajectory
from .host_forward import Options, options_for
from .host_fusion import Branch, fusing_options
from .host_inputs import Conditioning
from .host_lora import ForwardLora

Run = Callable[[Denoiser, Tensor, OnStep], Tensor]
"""A core loop: (model, start latent in the host's scale, progress) -> resulting latent."""


class RunSampler(comfy.samplers.Sampler):
    """A host sampler whose loop is one of the core's."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Called by the host's guider. ``noise`` is not used: the start latent holds it all."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return model_wrap(x, sigma, model_options=extra_args["model_options"], seed=extra_args.get("seed"))

        def on_step(step: int, steps: int, x0: Tensor) -> None:
            if callback is not None:
                callback(step, x0, x0, steps)

        return self._run(denoise, latent_image, on_step)


class SourceGuider(comfy.samplers.CFGGuider):
    """One conditioning, no guidance, exactly one UNet row per evaluation.

    ``tap``, when set, listens to every evaluation; ``lora``, when set, acts in it. A guider lives for one run.
    """

    tap: Tap | None = None
    lora: ForwardLora | None = None

    def set_source(self, conditioning: Conditioning) -> None:
        """The conditioning that the content is predicted with."""
        self.inner_set_conds({"positive": conditioning})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> Tensor:
        """The denoised x0 for the one conditioning."""
        options = options_for(model_options, self.tap, [self.lora])
        return comfy.samplers.calc_cond_batch(self.inner_model, [self.conds["positive"]], x, timestep, options)[0]


class InjectedGuider(comfy.samplers.CFGGuider):
    """Guidance with every branch's LoRA in the forward pass and the content injected into every row (eqs. 6, 8)."""

    def __init__(self, model: ModelPatcher, capture: Capture, plan: InjectionPlan, branches: Sequence[Branch]) -> None:
        super().__init__(model)
        self._capture = capture
        self._plan = plan
        self._branches = tuple(branches)
        self._recorded: tuple[int, dict[Site, SiteTensors]] | None = None

    def set_conds(self, positive: Conditioning, negative: Conditioning) -> None:
        """Also takes along the branches' own prompts, and the content's for what is recomputed."""
        super().set_conds(positive, negative)
        self.inner_set_conds({"content": self._capture.conditioning})
        own = {_named(i): branch.positive for i, branch in enumerate(self._branches)}
        self.inner_set_conds({name: positive for name, positive in own.items() if positive is not None})

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        """One run; nothing of an earlier one is known to it."""
        self._recorded = None
        return super().sample(*args, **kwargs)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> Tensor:
        """The guided x0 of one step. All injection and fusion of the pack happens through the options made here."""
        schedule = self._capture.trajectory.schedule
        step = schedule.step_at(float(timestep[0]))
        t = schedule.timesteps[step]
        tap = None
        if self._plan.sites_at(step, t):
            tap = Injector(self._plan, step, t, self._content(step, x, model_options))
        options = options_for(model_options, tap, [branch.lora(step) for branch in self._branches])
        return super().predict_noise(x, timestep, self._fusing(options), seed)

    def _fusing(self, options: Options) -> Options:
        base = self.conds["positive"]
        positives = [self.conds.get(_named(i), base) for i in range(len(self._branches))]
        return fusing_options(options, base, positives, [branch.share for branch in self._branches])

    def _content(self, step: int, x: Tensor, model_options: Options) -> Any:
        """What the content's own run holds at this step: stored, or recomputed once as one more UNet row."""
        if self._capture.store is not None:
            return self._capture.at(step)
        if self._recorded is None or self._recorded[0] != step:
            schedule = self._capture.trajectory.schedule
            sigma = schedule.sigma(schedule.timesteps[step])
            z = self._capture.trajectory.latents[step].to(x)
            recorder = Recorder(self._plan.sites_at(step, schedule.timesteps[step]))
            comfy.samplers.calc_cond_batch(
                self.inner_model,
                [self.conds["content"]],
                z * math.sqrt(1.0 + sigma**2),
                torch.full((1,), sigma, device=x.device, dtype=torch.float32),
                options_for(model_options, recorder),
            )
            self._recorded = (step, recorder.taken)
        return self._recorded[1]


def _named(branch: int) -> str:
    """A branch's own prompt among the guider's conditionings."""
    return f"style {branch + 1}"


def sigmas_of(schedule: NoiseSchedule) -> Tensor:
    """The noise levels of a run as the host's SIGMAS [S + 1]; the last one is the picture's, at abar_0."""
    last = math.sqrt((1.0 - schedule.abar[0]) / schedule.abar[0])
    return torch.tensor([schedule.sigma(t) for t in schedule.timesteps] + [last], dtype=torch.float32)


def run_guider(
    guider: comfy.samplers.CFGGuider, latent: Tensor, run: Run, schedule: NoiseSchedule, steps: int
) -> Tensor:
    """Runs a core loop over ``guider`` with the host's progress bar and previews. ``latent`` is not changed."""
    callback = latent_preview.prepare_callback(guider.model_patcher, steps)
    noise = torch.zeros_like(latent)
    return guider.sample(noise, latent, RunSampler(run), sigmas_of(schedule), callback=callback, disable_pbar=True)


def denoise_content(denoise: Denoiser, trajectory: Trajectory, step: int, like: Tensor) -> Tensor:
    """x0 [1, C, H, W] of one evaluation of the content at (z_t, t) of a step, on the device of ``like``."""
    sigma = trajectory.schedule.sigma(trajectory.schedule.timesteps[step])
    x = trajectory.latents[step].to(like) * math.sqrt(1.0 + sigma**2)
    return denoise(x, torch.full((1,), sigma, device=like.device))


def to_exploding(z: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z at the noisiest level as the host's samplers expect it: x = z sqrt(1 + sigma^2)."""
    return z * math.sqrt(1.0 + schedule.sigma(schedule.timesteps[0]) ** 2)


def to_preserving(x: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The inverse of ``to_exploding``."""
    return x / math.sqrt(1.0 + schedule.sigma(schedule.timesteps[0]) ** 2)
