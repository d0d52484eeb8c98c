"""One run's branches at every noise level: what acts in each, with which prompts, and what the contents hold there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.between import BetweenSteps, Held, Level
from ....diffstyler_core.injection.reference import ReferenceTap
from ....diffstyler_core.injection.taps import Injector, Recorder, Tap
from ..checks.conditioning import Conditioning
from .branches import Branch, Content, Injected, Referenced
from .controls import Processed
from .forward import Acting, Options, acting_options
from .fusion import BranchStep, Prompts

Between = Literal["interpolated", "nearest"]
BETWEENS: tuple[Between, ...] = ("interpolated", "nearest")
"""What stands for a noise level between two of the trajectory's: the two, blended, or the nearest of them."""


class Setting(NamedTuple):
    """What the host knows of a run when it prepares prompts. start: the latent it starts from, in the model's scale."""

    model: Any
    noise: Tensor
    start: Tensor
    device: torch.device
    sigmas: Tensor
    denoise_mask: Tensor | None
    seed: int | None
    latent_shapes: Any = None

    def processed(self, conds: Mapping[str, Processed], like: Tensor | None = None) -> Prompts:
        """Prompts made ready as those of one run: the host carries controls and areas over from one to another."""
        copies = {name: [dict(entry) for entry in entries] for name, entries in conds.items()}
        return comfy.samplers.process_conds(
            self.model,
            self.noise if like is None else like,
            copies,
            self.device,
            self.start,
            self.denoise_mask,
            self.seed,
            self.latent_shapes,
        )


class OwnPrompts:
    """The prompts that a run has beside its sampler's: the branches' own, and those of the recomputed contents."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._branches = branches
        contents = dict.fromkeys(content for branch in branches for content in branch.contents())
        self._recomputed = tuple(content for content in contents if content.capture.store is None)

    def conditionings(self) -> dict[str, Conditioning]:
        """Each under a name of its own."""
        own = {_style(i): branch.positive for i, branch in enumerate(self._branches) if branch.positive is not None}
        contents = {_content(i): content.capture.source.conditioning for i, content in enumerate(self._recomputed)}
        return {**own, **contents}  # type: ignore[dict-item]  # opaque in the core

    def of_branches(self, raw: Mapping[str, Processed], asked: Prompts, setting: Setting) -> dict[int, Prompts]:
        """By number of the branch: its own prompt and the run's negative, as a run of their own.

        raw: the host's form of ``conditionings``. asked: the run's own prompts in that form, not yet processed.
        """
        negative = {"negative": asked["negative"]} if asked.get("negative") else {}
        return {
            i: setting.processed({"positive": raw[_style(i)], **negative})
            for i in range(len(self._branches))
            if _style(i) in raw
        }

    def of_contents(self, raw: Mapping[str, Processed], setting: Setting) -> dict[Content, tuple[Processed, Options]]:
        """Of each recomputed content its prompt, and the options of the MODEL that it was captured with."""
        ready = {}
        for i, content in enumerate(self._recomputed):
            like = torch.zeros_like(content.capture.trajectory.noise)  # a style's picture may have another size
            prompt = setting.processed({"positive": raw[_content(i)]}, like)["positive"]
            ready[content] = prompt, options_of(content.capture.source.model, setting.device, setting.sigmas)
        return ready


class BranchRun:
    """What every branch does at the noise levels of one run. It is made for a run and ends with it.

    prompts: by number of the branch, its own. contents: of each recomputed content, its prompt and its MODEL's options.
    """

    def __init__(
        self,
        model: Any,
        trajectory: Trajectory,
        branches: Sequence[Branch],
        prompts: Mapping[int, Prompts],
        contents: Mapping[Content, tuple[Processed, Options]],
        between: Between = "nearest",
    ) -> None:
        self._model, self._trajectory, self._branches = model, trajectory, branches
        self._prompts, self._contents, self._between = prompts, contents, between
        self._level: Level | None = None
        self._held: dict[Content, Held] = {}

    def at(self, sigma: float, asked: Prompts, x: Tensor) -> list[BranchStep]:
        """Every branch at a noise level; those with the same content and plan share one tap.

        asked: the run's own prompts, for branches without any. x: a latent of the run.
        """
        level = Level.of(self._trajectory.schedule, sigma, self._between == "interpolated")
        taps: dict[tuple[Injected | None, Referenced | None], Tap | None] = {}
        out = []
        for i, branch in enumerate(self._branches):
            acts = branch.injected, branch.reference
            if acts not in taps:
                taps[acts] = self._tap(branch, level, x)
            prompts = self._prompts.get(i) or asked
            out.append(BranchStep(branch.share, prompts, Acting(branch.lora.at(level.step), taps[acts])))
        return out

    def _tap(self, branch: Branch, level: Level, x: Tensor) -> Tap | None:
        """What a branch's content injects at a level, and its style's own picture on top of that."""
        step, t = level.step, level.t
        held = {
            content: self._held_by(content, level, x) for content in branch.contents() if branch.asks(content, step, t)
        }
        injected, reference = branch.injected, branch.reference
        tap = None
        if injected is not None and injected.plan.sites_at(step, t):
            tap = Injector(injected.plan, step, t, held[injected.content])
        if reference is None or not reference.plan.sites_at(step):
            return tap
        queries = {} if injected is None else held.get(injected.content, {})
        return ReferenceTap(reference.plan, step, held[reference.style], queries, tap)

    def _held_by(self, content: Content, level: Level, x: Tensor) -> Held:
        """What the content's own run holds at this level: as stored, or recomputed once as one more UNet row."""
        if self._level != level:
            self._level, self._held = level, {}
        if content not in self._held:
            stored = content.capture.store is not None
            self._held[content] = _stored(content, level, x) if stored else self._recompute(content, level, x)
        return self._held[content]

    def _recompute(self, content: Content, level: Level, x: Tensor) -> Held:
        """One evaluation of the content there, under the patches of the MODEL that Capture was given."""
        sites = frozenset().union(*(branch.asks(content, level.step, level.t) for branch in self._branches))
        recorder = Recorder(sites, values=content.capture.request.values)
        prompt, options = self._contents[content]
        path = level.exploding(content.capture.trajectory).to(x)
        comfy.samplers.calc_cond_batch(
            self._model,
            [prompt],
            path,
            torch.full((len(path),), level.sigma, device=x.device, dtype=torch.float32),
            acting_options(options, Acting(content.lora.at(level.step), recorder)),
        )
        return recorder.taken


def _stored(content: Content, level: Level, x: Tensor) -> Held:
    capture = content.capture
    if level.beside is None or not capture.request.sites_at(level.beside):
        return capture.at(level.step)
    return BetweenSteps(capture.at(level.step), capture.at(level.beside), level.share, x.device)


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


def require_finite_prediction(x0: Tensor, trajectory: Trajectory, sigma: float) -> None:
    """Raises ValueError for a prediction with NaN or infinity, before it becomes a picture."""
    if not torch.isfinite(x0).all():
        step = trajectory.schedule.step_at(sigma)
        raise ValueError(
            f"model: its prediction is no longer finite (NaN or infinity) at step {step} of "
            f"{trajectory.schedule.steps}, t = {trajectory.schedule.timesteps[step]}. Lower cfg or the strength of a "
            "LoRA; if the model is in half precision, start ComfyUI with --force-fp32."
        )


def next_level(sigmas: Tensor, sigma: float) -> float:
    """The noise level that a run goes to from ``sigma``: the next below it, 0 after the last."""
    below = sigmas[sigmas < sigma * (1.0 - 1e-6)]
    return float(below.max()) if len(below) else 0.0


def _style(branch: int) -> str:
    """A branch's own prompt among the run's conditionings."""
    return f"style {branch + 1}"


def _content(number: int) -> str:
    """The prompt of a recomputed content among the run's conditionings."""
    return f"content {number + 1}"
