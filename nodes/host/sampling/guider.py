"""The injected prediction as a host guider: every branch's LoRA and injection, fused, the content kept outside."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ..checks.conditioning import Conditioning
from .branch_run import BranchRun, OwnPrompts, Setting, next_level, require_finite_prediction
from .branches import Composition
from .controls import Processed
from .forward import Options
from .fusion import fusing_options
from .kept import finished
from .levels import require_levels
from .start import on_the_path

ASKED = ("positive", "negative")


class InjectedGuider(comfy.samplers.CFGGuider):
    """Guidance with every branch's LoRA in the forward pass and its content injected into its rows (eqs. 6, 8).

    Where the content is kept outside of the styles (eq. 7), every evaluation sees the content's own path there, a
    first-order sampler takes the steps of eq. 7, and at the end the content is put back exactly, at whatever noise
    levels the sampler visited. A run that ends at the last of the trajectory's levels, abar_0, comes back in the
    latent's scale.

    A trajectory with noises (CycleDiffusion): ``adds_noises`` says that this guider's answers take a first-order
    sampler to where stochastic DDIM goes; else the sampler adds them itself, as the core's own loop does.
    """

    def __init__(
        self, model: ModelPatcher, trajectory: Trajectory, composition: Composition, adds_noises: bool = True
    ) -> None:
        super().__init__(model)
        self._adds_noises = adds_noises and trajectory.noises is not None
        self._trajectory = trajectory
        self._composition = composition
        self._branches, self._kept = composition
        self._own = OwnPrompts(model, self._branches)
        self._run: BranchRun | None = None
        self._x0: Tensor | None = None  # what the model last said of the picture

    def set_conds(self, positive: Conditioning, negative: Conditioning) -> None:
        """Also takes along the branches' own prompts, and those of the contents that are recomputed."""
        super().set_conds(positive, negative)
        self.inner_set_conds(self._own.conditionings())

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        *args: Any,
        **kw: Any,
    ) -> Tensor:
        """One run of the host's. Nothing of an earlier one is known to it, and it leaves nothing on the device."""
        if latent_image.shape != self._trajectory.noise.shape:
            raise ValueError(
                f"latent_image: {list(latent_image.shape)} does not fit the trajectory's "
                f"{list(self._trajectory.noise.shape)}. "
                "Wire the x_T of DDIM Invert into the sampler, or a latent of the content's size."
            )
        if self._adds_noises:
            require_levels(sampler, sigmas, self._trajectory.schedule)
        last = float(sigmas[-1]) if len(sigmas) else 0.0  # before the run: uni_pc writes into its levels
        if len(sigmas):
            latent_image = on_the_path(self.model_patcher, self._trajectory, noise, latent_image, sigmas)
        shown = self._shown_by(callback) if self._adds_noises else callback
        try:
            samples = super().sample(noise, latent_image, sampler, sigmas, denoise_mask, shown, *args, **kw)
        finally:
            self._run = self._x0 = None
            self._composition.release()
        if not len(sigmas):
            return samples
        return finished(self.model_patcher, self._trajectory, self._composition, samples, last)

    def _shown_by(self, callback: Any) -> Any:
        """The sampler's progress with the model's own x0 as the preview: the answers carry the next step's noise."""
        if callback is None:
            return None

        def shown(step: int, x0: Tensor, x: Tensor, steps: int) -> None:
            callback(step, x0 if self._x0 is None else self._x0, x, steps)

        return shown

    def inner_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: torch.device,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        callback: Any,
        disable_pbar: bool,
        seed: int | None,
        latent_shapes: Any = None,
    ) -> Tensor:
        """Lets the host process each branch's prompts as a run of their own: it carries controls and areas over from
        one conditioning of a run to all the others."""
        apart: dict[str, Processed] = {name: self.conds.pop(name) for name in tuple(self.conds) if name not in ASKED}
        start = self.inner_model.process_latent_in(latent_image) if latent_image.any() else latent_image
        setting = Setting(self.inner_model, noise, start, device, sigmas, denoise_mask, seed, latent_shapes)
        prompts, contents = self._own.of_branches(apart, self.conds, setting), self._own.of_contents(apart, setting)
        self._run = BranchRun(setting, self._trajectory, self._branches, prompts, contents)
        try:
            return super().inner_sample(
                noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, latent_shapes
            )
        finally:
            self._run.close()
            self.conds.update(apart)  # the host cleans up after every conditioning that it prepared

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> Tensor:
        """The guided x0 [B, C, h, w] inside, the content outside."""
        kept, sigma = self._kept, float(timestep[0])
        if not self._branches:
            return self._trajectory.content.to(x)
        shown = x if kept is None else kept.shown(x, sigma)
        x0 = self._predicted(shown, timestep, model_options, seed)
        jump = self._trajectory.jump(self._trajectory.schedule.step_at(sigma))
        if kept is None and not self._adds_noises:
            return x0
        after = next_level(model_options["transformer_options"]["sample_sigmas"], sigma)
        if jump is not None and self._adds_noises:
            self._x0 = x0 if kept is None else kept.blended(x0)
            x0 = jump.seen_by_euler(shown, x0, sigma, after)
        elif jump is not None:
            after = jump.drift
        return x0 if kept is None else kept.answer(x, shown, x0, sigma, after)

    def _predicted(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None) -> Tensor:
        """The guided x0 of one step. All injection and fusion of the pack happens through the options made here."""
        sigma, run = float(timestep[0]), self._run
        if run is None:
            raise RuntimeError("a guider predicts within its run only: call sample.")
        options = fusing_options(model_options, self.conds, run.at(sigma, self.conds, x), run.forwards)
        x0 = super().predict_noise(x, timestep, options, seed)
        require_finite_prediction(x0, self._trajectory, sigma)
        return x0
