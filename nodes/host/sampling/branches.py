"""Branches: the predictions that are fused at every step, each with all that acts in it (DiffStyler 2026, eq. 8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.between import Used
from ....diffstyler_core.injection.capture import Capture
from ....diffstyler_core.injection.plan import InjectionPlan
from ....diffstyler_core.injection.reference import ReferencePlan
from ....diffstyler_core.injection.sites import Site
from ....diffstyler_core.styles.kept import KeptContent
from ..checks.conditioning import Conditioning
from ..identity import fingerprint
from ..lora.run import LoraRun
from ..model import require_family


class Content:
    """A capture as a run on ``model`` over the levels of ``run`` uses it: stored, or to be recomputed at each step.

    lora: what acts in the content's own run, where that is recomputed. ``name`` is what errors call the capture.

    Raises ValueError for a capture of another kind of model or of other levels, and for one to be recomputed that was
    asked for on a MODEL of other weights than this.
    """

    def __init__(self, model: ModelPatcher, capture: Capture, run: Trajectory, name: str) -> None:
        own = capture.trajectory
        require_family(model, own.family, name)
        if own.schedule.timesteps != run.schedule.timesteps:
            raise ValueError(
                f"{name}: captured over {_walk(own)}, and the sampler's features over {_walk(run)}. "
                "Invert both pictures with the same number of steps, and skip the same."
            )
        self.capture = capture
        source = capture.source
        if capture.store is None:
            require_same_weights(model, source.model, name)
        lora = source.lora if capture.store is None else None
        self.lora = LoraRun(model, lora, source.strength, f"{name}: lora of its capture", run.schedule.steps)

    def release(self) -> None:
        """Forgets what the run put on the computing device."""
        self.lora.release()


def _walk(trajectory: Trajectory) -> str:
    """The levels of a trajectory in words: '50 steps', '90 steps from t = 891'."""
    schedule = trajectory.schedule
    return f"{schedule.steps} steps" + (f" from t = {schedule.timesteps[0]}" if schedule.skipped else "")


FEATURE = QUERIES = frozenset({0})
QUERIES_AND_KEYS = frozenset({0, 1})


def together(used: Iterable[Used]) -> Used:
    """What is used by any."""
    out: dict[Site, frozenset[int]] = {}
    for own in used:
        for site, which in own.items():
            out[site] = out.get(site, frozenset()) | which
    return out


class Injected(NamedTuple):
    """What is injected into a branch's rows, and when."""

    content: Content
    plan: InjectionPlan


class Referenced(NamedTuple):
    """Whose attention a branch's rows look at as well, and when."""

    style: Content
    plan: ReferencePlan


@dataclass(frozen=True)
class Branch:
    """One prediction of every evaluation.

    share: [h, w] or [B, h, w], its part of the fused prediction; the branches' shares sum to one wherever the result
    counts.
    lora: of each step. positive: its own prompt; None: the sampler's. injected: None injects nothing, as eq. 8's base
    term has it. reference: the style's own picture, whose queries' partner is the content of ``injected``.
    """

    share: Tensor
    lora: LoraRun
    positive: Conditioning | None = None
    injected: Injected | None = None
    reference: Referenced | None = None

    def asks(self, content: Content, step: int, t: float) -> Used:
        """What this branch takes of a content or style's picture at a step: by site, of q, k and v (a feature is 0)."""
        used: list[Used] = []
        looked_at = frozenset() if self.reference is None else self.reference.plan.sites_at(step)
        if self.injected is not None and self.injected.content is content:
            sites = self.injected.plan.sites_at(step, t)
            used.append({site: FEATURE if site.kind == "feature" else QUERIES_AND_KEYS for site in sites})
            if self.reference is not None and self.reference.plan.method.takes_queries:
                used.append(dict.fromkeys(looked_at, QUERIES))
        if self.reference is not None and self.reference.style is content:
            used.append(dict.fromkeys(looked_at, self.reference.plan.method.takes))
        return together(used)

    def contents(self) -> tuple[Content, ...]:
        """The content and the style's picture, where there are any."""
        injected = () if self.injected is None else (self.injected.content,)
        return injected if self.reference is None else (*injected, self.reference.style)

    def release(self) -> None:
        """Forgets what the run put on the computing device."""
        self.lora.release()
        for content in self.contents():
            content.release()


class Composition(NamedTuple):
    """What a run predicts and what it keeps: the masks' shares are on the branches, their common outside in ``kept``.

    kept: the content outside of the styles; None where nothing is kept.
    """

    branches: tuple[Branch, ...]
    kept: KeptContent | None

    def release(self) -> None:
        """Forgets what a run put on the computing device."""
        for branch in self.branches:
            branch.release()


def contents_of(branches: Sequence[Branch]) -> tuple[Content, ...]:
    """The contents and styles' pictures of all branches, each once."""
    return tuple(dict.fromkeys(content for branch in branches for content in branch.contents()))


def used_of(content: Content, branches: Sequence[Branch], step: int, t: float) -> Used:
    """What any of the branches takes of a content at a step."""
    return together(branch.asks(content, step, t) for branch in branches)


def require_same_size(content: Content, run: Trajectory, name: str) -> None:
    """Raises ValueError when a content is of another size than the run: its features and queries would not fit."""
    own, latent = content.capture.trajectory.content, run.content
    if own.shape != latent.shape:
        raise ValueError(
            f"{name}: captured from a content latent of {list(own.shape)}, and the sampler's "
            f"features from {list(latent.shape)}. Use contents of one size."
        )


def require_same_weights(model: ModelPatcher, captured: object, name: str) -> None:
    """Raises ValueError when a capture to be recomputed was asked for on a MODEL of other weights than the run's.

    The run's own network gives the recomputed row; only with the same weights is it what that MODEL would give.
    """
    if not isinstance(captured, ModelPatcher):
        raise ValueError(f"{name}: the MODEL that it was captured with is not known any more. Capture again.")
    unchanged = captured.is_clone(model) and captured.patches_uuid == model.patches_uuid
    if captured.object_patches == model.object_patches and (unchanged or fingerprint(captured) == fingerprint(model)):
        return
    raise ValueError(
        f"{name}: its storage is 'recompute', but Capture Features/Attention has another MODEL than this node "
        "(another checkpoint, or a LoRA or patch on one of them). Wire the same MODEL into both, give Capture the LoRA "
        "at its own input lora, or choose memory or disk there."
    )
