"""The injected prediction as a host guider: every branch's LoRA and injection, fused, the content kept outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.reference import ReferenceTap
from ....diffstyler_core.injection.sites import Site
from ....diffstyler_core.injection.taps import Injector, Recorder, SiteTensors, Tap
from ....diffstyler_core.styles.regions import localize, put_back
from ..checks.conditioning import Conditioning
from .branches import Branch, Composition, Content, Injected, Referenced
from .forward import Acting, Options, acting_options
from .fusion import BranchStep, Processed, Prompts, fusing_options
from .levels import require_levels
from .runs import sigmas_of

Held = Mapping[Site, SiteTensors]
"""What the content holds at each site of one step."""

ASKED = ("positive", "negative")


@dataclass
class _Run:
    """What a guider knows only while it samples.

    prompts: by number of the branch, its own prompts. contents: of each recomputed content, its prompt and the options
    of its MODEL. held: what the contents hold at ``step``. x0: what the model last said of the picture.
    """

    prompts: dict[int, Prompts] = field(default_factory=dict)
    contents: dict[Content, tuple[Processed, Options]] = field(default_factory=dict)
    step: int = -1
    held: dict[Content, Held] = field(default_factory=dict)
    x0: Tensor | None = None


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
        self._branches, self._kept = composition
        contents = dict.fromkeys(content for branch in self._branches for content in branch.contents())
        self._recomputed = tuple(content for content in contents if content.capture.store is None)
        self._run = _Run()

    def set_conds(self, positive: Conditioning, negative: Conditioning) -> None:
        """Also takes along the branches' own prompts, and those of the contents that are recomputed."""
        super().set_conds(positive, negative)
        own = {_style(i): branch.positive for i, branch in enumerate(self._branches) if branch.positive is not None}
        contents = {_content(i): content.capture.source.conditioning for i, content in enumerate(self._recomputed)}
        self.inner_set_conds({**own, **contents})

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
        shown = self._shown_by(callback) if self._adds_noises else callback
        try:
            samples = super().sample(noise, latent_image, sampler, sigmas, denoise_mask, shown, *args, **kw)
        finally:
            self._run = _Run()
            for branch in self._branches:
                branch.release()
        return samples if sigmas.shape[-1] == 0 else self._finished(samples, float(sigmas[-1]))

    def _shown_by(self, callback: Any) -> Any:
        """The sampler's progress with the model's own x0 as the preview: the answers carry the next step's noise."""
        if callback is None:
            return None

        def shown(step: int, x0: Tensor, x: Tensor, steps: int) -> None:
            callback(step, x0 if self._run.x0 is None else self._run.x0, x, steps)

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
        apart = {name: self.conds.pop(name) for name in tuple(self.conds) if name not in ASKED}
        start = self.inner_model.process_latent_in(latent_image) if latent_image.any() else latent_image

        def processed(like: Tensor = noise, **conds: Processed) -> Prompts:
            copies = {name: [dict(entry) for entry in entries] for name, entries in conds.items()}
            return comfy.samplers.process_conds(
                self.inner_model, like, copies, device, start, denoise_mask, seed, latent_shapes
            )

        for i in range(len(self._branches)):
            if _style(i) in apart:
                self._run.prompts[i] = processed(positive=apart[_style(i)], negative=self.conds["negative"])
        for i, content in enumerate(self._recomputed):
            own = torch.zeros_like(content.capture.trajectory.noise)  # a style's picture may have another size
            prompt = processed(own, positive=apart[_content(i)])["positive"]
            self._run.contents[content] = prompt, options_of(content.capture.source.model, device, sigmas)
        try:
            return super().inner_sample(
                noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, latent_shapes
            )
        finally:
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
        after = _next_level(model_options["transformer_options"]["sample_sigmas"], sigma)
        if jump is not None and self._adds_noises:
            self._run.x0 = x0 if kept is None else kept.blended(x0)
            x0 = jump.seen_by_euler(shown, x0, sigma, after)
        elif jump is not None:
            after = jump.drift
        return x0 if kept is None else kept.answer(x, shown, x0, sigma, after)

    def _predicted(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None) -> Tensor:
        """The guided x0 of one step. All injection and fusion of the pack happens through the options made here."""
        schedule = self._trajectory.schedule
        step = schedule.step_at(float(timestep[0]))
        options = fusing_options(model_options, self.conds, self._at(step, x))
        x0 = super().predict_noise(x, timestep, options, seed)
        if not torch.isfinite(x0).all():
            raise ValueError(
                f"model: its prediction is no longer finite (NaN or infinity) at step {step} of {schedule.steps}, "
                f"t = {schedule.timesteps[step]}. Lower cfg or the strength of a LoRA; if the model is in half "
                "precision, start ComfyUI with --force-fp32."
            )
        return x0

    def _at(self, step: int, x: Tensor) -> list[BranchStep]:
        """Every branch at this step. Branches with the same content and plan share one tap."""
        t = self._trajectory.schedule.timesteps[step]
        taps: dict[tuple[Injected | None, Referenced | None], Tap | None] = {}
        out = []
        for i, branch in enumerate(self._branches):
            acts = branch.injected, branch.reference
            if acts not in taps:
                taps[acts] = self._tap(branch, step, t, x)
            prompts = self._run.prompts.get(i) or self.conds
            out.append(BranchStep(branch.share, prompts, Acting(branch.lora.at(step), taps[acts])))
        return out

    def _tap(self, branch: Branch, step: int, t: int, x: Tensor) -> Tap | None:
        """What a branch's content injects at this step, and its style's own picture on top of that."""
        held = {content: self._held(content, step, x) for content in branch.contents() if branch.asks(content, step, t)}
        injected, reference = branch.injected, branch.reference
        tap = None
        if injected is not None and injected.plan.sites_at(step, t):
            tap = Injector(injected.plan, step, t, held[injected.content])
        if reference is None or not reference.plan.sites_at(step):
            return tap
        queries = {} if injected is None else held.get(injected.content, {})
        return ReferenceTap(reference.plan, step, held[reference.style], queries, tap)

    def _held(self, content: Content, step: int, x: Tensor) -> Held:
        """What the content's own run holds at this step: as stored, or recomputed once as one more UNet row."""
        if self._run.step != step:
            self._run.step, self._run.held = step, {}
        if content not in self._run.held:
            stored = content.capture.store is not None
            self._run.held[content] = content.capture.at(step) if stored else self._recompute(content, step, x)
        return self._run.held[content]

    def _recompute(self, content: Content, step: int, x: Tensor) -> Held:
        """One evaluation of the content at (z_t, t), under the patches of the MODEL that Capture was given."""
        trajectory = content.capture.trajectory
        t = trajectory.schedule.timesteps[step]
        sites = frozenset().union(*(branch.asks(content, step, t) for branch in self._branches))
        recorder = Recorder(sites, values=content.capture.request.values)
        sigma = trajectory.schedule.sigma(t)
        prompt, options = self._run.contents[content]
        comfy.samplers.calc_cond_batch(
            self.inner_model,
            [prompt],
            trajectory.latents[step].to(x) * math.sqrt(1.0 + sigma**2),
            torch.full((1,), sigma, device=x.device, dtype=torch.float32),
            acting_options(options, Acting(content.lora.at(step), recorder)),
        )
        return recorder.taken

    def _finished(self, samples: Tensor, last: float) -> Tensor:
        """A run's result with the content's own latents outside; in the latent's scale where it is a picture.

        A run that stops before that has its soft edges blended by the one that goes on.
        """
        picture = math.isclose(last, float(sigmas_of(self._trajectory.schedule)[-1]), rel_tol=1e-4)
        content = self._trajectory.content if picture else self._trajectory.exploding_at(last)
        samples = samples / math.sqrt(1.0 + last**2) if picture else samples
        outside = self.model_patcher.model.process_latent_out(content).to(samples)
        if not self._branches:
            return outside
        if self._kept is None:
            return samples
        inside = self._kept.inside
        return put_back(localize(samples, outside, inside) if picture or last == 0.0 else samples, outside, inside)


def options_of(model: Any, device: torch.device, sigmas: Tensor) -> Options:
    """The model options under which the host evaluates a MODEL in a run: its own patches, wrappers and callbacks."""
    ready = model.clone()
    ready.model_patches_to(device)
    options: Options = ready.model_options
    inner = options.setdefault("transformer_options", {})
    for kind in ("wrappers", "callbacks"):
        comfy.patcher_extension.merge_nested_dicts(inner.setdefault(kind, {}), getattr(model, kind), copy_dict1=False)
    inner["sample_sigmas"] = sigmas
    return options


def _next_level(sigmas: Tensor, sigma: float) -> float:
    """The noise level that a run goes to from ``sigma``: the next below it, 0 after the last."""
    below = sigmas[sigmas < sigma * (1.0 - 1e-6)]
    return float(below.max()) if len(below) else 0.0


def _style(branch: int) -> str:
    """A branch's own prompt among the guider's conditionings."""
    return f"style {branch + 1}"


def _content(number: int) -> str:
    """The prompt of a recomputed content among the guider's conditionings."""
    return f"content {number + 1}"
