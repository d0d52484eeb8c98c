"""One run's branches at every noise level: what acts in each, with which prompts, and what the contents hold there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.between import Held, Level, Used
from ....diffstyler_core.injection.reference import ReferenceTap
from ....diffstyler_core.injection.taps import Injector, Recorder, Tap
from ..checks.conditioning import Conditioning
from ..lora.forwards import Forwards
from .branches import Branch, Content, Injected, Referenced, contents_of, used_of
from .controls import Processed
from .forward import Acting, Options, acting_options
from .fusion import BranchStep, Prompts
from .held import HeldSteps, Needs, Step
from .room import features_room

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
    """The prompts that a run has beside its sampler's: the branches' own, and those of the recomputed contents.

    One more, without a prompt, has the host leave room on the device for what the contents hold there.
    """

    def __init__(self, model: ModelPatcher, branches: Sequence[Branch], between: Between = "nearest") -> None:
        self._branches = branches
        self._recomputed = tuple(content for content in contents_of(branches) if content.capture.store is None)
        self._room = features_room(model, branches, between == "interpolated")

    def conditionings(self) -> dict[str, Conditioning]:
        """Each under a name of its own."""
        own = {_style(i): branch.positive for i, branch in enumerate(self._branches) if branch.positive is not None}
        contents = {_content(i): content.capture.source.conditioning for i, content in enumerate(self._recomputed)}
        room = {"features": self._room.conditioning()} if self._room.nbytes else {}
        return {**own, **contents, **room}  # type: ignore[dict-item]  # opaque in the core

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
    """What every branch does at the noise levels of one run. It is made for a run; ``close`` ends it.

    prompts: by number of the branch, its own. contents: of each recomputed content, its prompt and its MODEL's options.
    forwards: what its evaluations put on the UNet's layers.
    """

    def __init__(
        self,
        setting: Setting,
        trajectory: Trajectory,
        branches: Sequence[Branch],
        prompts: Mapping[int, Prompts],
        contents: Mapping[Content, tuple[Processed, Options]],
        between: Between = "nearest",
    ) -> None:
        self._model, self._trajectory, self._branches = setting.model, trajectory, branches
        self._prompts, self._contents, self._between = prompts, contents, between
        self._sigmas = setting.sigmas[:-1].cpu().clone()  # of the evaluations; uni_pc writes into its levels
        self._stored = HeldSteps(setting.model, setting.device)
        self.forwards = Forwards()
        self._level: Level | None = None
        self._held: dict[Content, Held] = {}
        self._shares: list[Tensor] = []

    def close(self) -> None:
        """Forgets what the contents hold; nothing of it stays on the device, and no thread."""
        self._level, self._held = None, {}
        self._stored.close()

    def at(self, sigma: float, asked: Prompts, x: Tensor) -> list[BranchStep]:
        """Every branch at a noise level; those with the same content and plan share one tap.

        asked: the run's own prompts, for branches without any. x: a latent of the run.
        """
        level = self._level_at(sigma)
        if level != self._level:
            self._level, self._held = level, {}
            after = next_level(self._sigmas, sigma)
            later = self._needed(self._level_at(after)) if after else {}
            self._stored.go_to(self._needed(level), later)
        taps: dict[tuple[Injected | None, Referenced | None], Tap | None] = {}
        if not self._shares:
            self._shares = [branch.share.to(x) for branch in self._branches]
        out = []
        for i, branch in enumerate(self._branches):
            acts = branch.injected, branch.reference
            if acts not in taps:
                taps[acts] = self._tap(branch, level, x)
            prompts = self._prompts.get(i) or asked
            out.append(BranchStep(self._shares[i], prompts, Acting(branch.lora.at(level.step), taps[acts])))
        return out

    def _level_at(self, sigma: float) -> Level:
        return Level.of(self._trajectory.schedule, sigma, self._between == "interpolated")

    def _needed(self, level: Level) -> Needs:
        """Of the stored contents' steps that a level lies at or between."""
        needs = {}
        for content in contents_of(self._branches):
            if content.capture.store is not None:
                used = used_of(content, self._branches, level.step, level.t)
                for step in (level.step,) if level.beside is None else (level.step, level.beside):
                    taken = content.capture.request.sites_at(step)
                    if own := {site: which for site, which in used.items() if site in taken}:
                        needs[Step(content, step)] = own
        return needs

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
        if content not in self._held:
            used = used_of(content, self._branches, level.step, level.t)
            stored = content.capture.store is not None
            held = self._stored.at(content, level, used) if stored else self._recompute(content, level, used, x)
            self._held[content] = held
        return self._held[content]

    def _recompute(self, content: Content, level: Level, used: Used, x: Tensor) -> Held:
        """One evaluation of the content there, under the patches of the MODEL that Capture was given."""
        recorder = Recorder(frozenset(used), values=content.capture.request.values)
        prompt, options = self._contents[content]
        path = level.exploding(content.capture.trajectory).to(x)
        comfy.samplers.calc_cond_batch(
            self._model,
            [prompt],
            path,
            torch.full((len(path),), level.sigma, device=x.device, dtype=torch.float32),
            acting_options(options, Acting(content.lora.at(level.step), recorder), self.forwards),
        )
        return recorder.taken


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
