"""What the inputs of the Injected LoRA Sampler and Guider mean: checked, and turned into branches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.capture import Capture
from ....diffstyler_core.injection.plan import InjectionPlan
from ....diffstyler_core.injection.reference import Reference
from ....diffstyler_core.injection.settings import NOTHING, InjectionSettings
from ....diffstyler_core.lora.schedule import Lora, LoraSchedule
from ....diffstyler_core.styles.kept import KeptContent
from ....diffstyler_core.styles.regions import OUTSIDES, Outside
from ....diffstyler_core.styles.style import Style, Styles, regions_of, require_masks_fit
from ..checks.conditioning import Conditioning, require_conditioning, require_no_area
from ..checks.numbers import require_number
from ..checks.timesteps import require_covered
from ..lora.files import NO_LORA
from ..lora.run import STRONGEST, LoraRun, wired_or_file
from ..model import require_compatible, require_family
from .branches import Branch, Composition, Content, Injected, Referenced, require_same_size
from .frames import Group

FARTHEST = 512
"""Pixels by which masks grow, shrink or soften at most."""


NOTHING_INJECTED = "nothing injected: features is a trajectory without a capture, so that preset has no effect"


class Prepared(NamedTuple):
    """A checked request, and what the user should know about it."""

    composition: Composition
    words: tuple[str, ...]


class Base(NamedTuple):
    """What every branch of a run starts from: its MODEL, the sampler's features, and what is injected by default.

    features: a capture, or a trajectory alone, of which nothing is injected. said: where the settings come from, in
    words. wired: whether that is the input injection. own_steps: whether the run takes the trajectory's own steps, and
    adds the noises of one that has any; a foreign sampler takes steps of its own.
    """

    model: ModelPatcher
    features: Capture | Trajectory
    settings: InjectionSettings
    said: str
    wired: bool = False
    own_steps: bool = True

    @property
    def trajectory(self) -> Trajectory:
        """The content's path that the run goes along."""
        return self.features if isinstance(self.features, Trajectory) else self.features.trajectory

    @property
    def capture(self) -> Capture | None:
        """What is injected where a style has no features of its own; None: nothing."""
        return None if isinstance(self.features, Trajectory) else self.features

    def of(self, group: Group) -> Base:
        """The run of some of the contents; itself where they are all."""
        if (group.start, group.stop) == (0, self.trajectory.frame_count):
            return self
        return self._replace(features=self.features.frames(group.start, group.stop))

    @property
    def injecting(self) -> bool:
        """Whether something is injected by default."""
        return self.capture is not None and any(self.settings.ends(self.steps))

    @property
    def steps(self) -> int:
        """S of the run."""
        return self.trajectory.schedule.steps

    def lora(self, lora: Lora | LoraSchedule | None, strength: float, name: str) -> LoraRun:
        """A LoRA, schedule or file's LoRA, made ready for this run."""
        return LoraRun(self.model, lora, strength, name, self.steps)

    def describe(self, injecting: bool = True) -> tuple[str, ...]:
        """What is injected by default, if anything is, and the noise that is added."""
        words = self._settings() if injecting else NOTHING_INJECTED
        noises = self.trajectory.noises
        if noises is None:
            return (words,)
        own = f"each step adds the content's own noise, {noises}"
        return (
            words,
            own if self.own_steps else "the trajectory's noises are not added: the sampler takes its own steps",
        )

    def _settings(self) -> str:
        feature, attention = self.settings.ends(self.steps)
        threshold = InjectionPlan(
            self.steps, feature, attention, train_timesteps=self.trajectory.schedule.span
        ).threshold
        steps = f"{feature} and {attention} of {self.steps} steps, T_a = {threshold:.0f}"
        return f"{self.said}: {self.settings}; {steps}"

    def require_injectable(self, styles: Styles) -> None:
        """Raises ValueError for a wired injection that has no features anywhere to take from."""
        if self.wired and self.capture is None and all(style.features is None for style in styles):
            raise ValueError(
                "injection: it was wired, but features is a TRAJECTORY, of which nothing is injected. Wire Capture "
                "Features/Attention into features, or unplug injection."
            )


def require_run(base: Base, positive: Conditioning, negative: Conditioning, cfg: float) -> None:
    """Raises ValueError for what no run can be made of.

    That is a MODEL that these nodes do not know, features of another kind of model, a guidance scale that is no
    number, and a prompt that does not fit the model or does not cover all of the run.
    """
    require_model(base)
    require_number(cfg, "cfg", 0.0, 100.0)
    _require_prompt(base, positive, "positive", base.injecting)
    _require_prompt(base, negative, "negative", base.injecting)


def require_model(base: Base) -> None:
    """Raises ValueError for a MODEL that these nodes do not know, and for features of another kind of model."""
    require_compatible(base.model)
    require_family(base.model, base.trajectory.family, "features")


def _require_prompt(base: Base, prompt: object, name: str, injecting: bool = False) -> None:
    schedule = base.trajectory.schedule
    checked = require_conditioning(prompt, base.model, name)
    if injecting:
        require_no_area(checked, name)
    require_covered(checked, base.model, [schedule.sigma(t) for t in schedule.timesteps], name)


def one_style(base: Base, lora: Lora | LoraSchedule | None, lora_name: str, strength: float) -> Prepared:
    """One LoRA, schedule or file for the whole picture. Raises ValueError."""
    require_number(strength, "lora_strength", -STRONGEST, STRONGEST)
    base.require_injectable(())
    wired, name = wired_or_file(lora, lora_name)
    run = base.lora(wired, strength, name)
    injected = Contents(base).injected(None, None, "features")
    everywhere = torch.ones(base.trajectory.content.shape[-2:])
    words = ["no style LoRA: base model"] if run.bare else []
    alone = Composition((Branch(everywhere, run, None, injected),), None)
    return Prepared(alone, (*words, *base.describe(injected is not None), *run.notes))


def in_regions(base: Base, styles: Styles, outside: Outside, mask_grow: int, mask_feather: int) -> Prepared:
    """A branch for every style that covers anything; one of zero share costs nothing. Raises ValueError."""
    if outside not in OUTSIDES:
        raise ValueError(f"outside must be one of {OUTSIDES}, got {outside!r}.")
    require_number(mask_grow, "mask_grow", -FARTHEST, FARTHEST)
    require_number(mask_feather, "mask_feather", 0, FARTHEST)
    if not styles:
        raise ValueError(
            "styles: a chain of at least one Regional Style is expected, got none. Wire one, or unplug styles."
        )
    require_masks_fit(styles, base.trajectory.frame_count)
    base.require_injectable(styles)
    keep = outside == "content"
    scale = base.model.get_model_object("latent_format").spacial_downscale_ratio
    height, width = base.trajectory.content.shape[-2:]
    regions = regions_of(styles, (height, width), (height * scale, width * scale), mask_grow, mask_feather)
    contents = Contents(base)
    injecting = base.capture is not None or any(style.features is not None for style in styles)
    branches, words = [], [*base.describe(injecting)]
    for number, (style, part, share) in enumerate(
        zip(styles, regions.styles, regions.among_styles() if keep else regions.styles, strict=True), 1
    ):
        name = style.label(number)
        branch = _branch(base, contents, style, share, name)
        words.append(f"{name}: {100 * part.mean().item():.1f} % of the picture{_differences(style, branch)}")
        words += branch.lora.notes
        if share.any():
            branches.append(branch)
    if regions.rest.any():
        there = "the content" if keep else "the base model's picture, nothing injected"
        words.append(f"outside: {there}, {100 * regions.rest.mean().item():.1f} %")
        if not keep:
            branches.append(Branch(regions.rest, base.lora(None, 1.0, "outside")))
    kept = KeptContent(base.trajectory, regions.inside) if keep and regions.rest.any() else None
    return Prepared(Composition(tuple(branches), kept), tuple(words))


def _branch(base: Base, contents: Contents, style: Style, share: Tensor, name: str) -> Branch:
    injecting = base.injecting if style.features is None and style.injection is None else style.injection != NOTHING
    _require_prompt(base, style.positive, f"positive of {name}", injecting or style.reference is not None)
    lora = base.lora(style.lora, style.strength, name)
    injected = contents.injected(style.features, style.injection, name)
    reference = None if style.reference is None else contents.referenced(style.reference, injected, name)
    return Branch(share, lora, style.positive, injected, reference)  # type: ignore[arg-type]  # opaque in the core


def _differences(style: Style, branch: Branch) -> str:
    """What a style does not share with the others, in words."""
    words = ["base model"] if branch.lora.bare and style.reference is None else []
    words += [str(style.reference)] if style.reference is not None else []
    words += ["its own features"] if style.features is not None else []
    words += [str(style.injection)] if style.injection is not None else []
    words += ["nothing injected"] if branch.injected is None else []
    return "".join(f", {word}" for word in words)


class Contents:
    """The captures of a run by identity: styles that are given the same one share it."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._known: dict[int, Content] = {}

    def injected(self, features: Capture | None, settings: InjectionSettings | None, name: str) -> Injected | None:
        """What is injected for one style: from its own features and settings, or the run's; None where none has any.

        Raises ValueError when they do not fit each other or the run.
        """
        own = "features" if features is None else f"features of {name}" if name != "features" else name
        capture = self._base.capture if features is None else features
        if capture is None:
            if settings not in (None, NOTHING):
                raise ValueError(
                    f"injection of {name}: it was wired, but neither the style nor the sampler has features to take "
                    "from (the sampler's is a TRAJECTORY). Wire Capture Features/Attention into one of them, or unplug "
                    "injection."
                )
            return None
        content = self._known_as(capture, own)
        require_same_size(content, self._base.trajectory, own)
        try:
            plan = capture.plan(self._base.settings if settings is None else settings)
        except ValueError as error:
            raise ValueError(str(error) if name == "features" else f"{name}: {error}") from error
        return Injected(content, plan)

    def referenced(self, reference: Reference, injected: Injected | None, name: str) -> Referenced:
        """The style's own picture, of any size, whose attention a branch looks at; ``injected`` has the queries.

        Raises ValueError when it does not fit the run, or the queries that it takes were not captured.
        """
        style = self._known_as(reference.features, f"style_features of {name}")
        try:
            content = None if injected is None else injected.content.capture
            plan = reference.plan(content)
            plan.require_queries(content)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return Referenced(style, plan)

    def _known_as(self, capture: Capture, name: str) -> Content:
        if id(capture) not in self._known:
            self._known[id(capture)] = Content(self._base.model, capture, self._base.trajectory, name)
        return self._known[id(capture)]


def prepare(
    base: Base,
    lora: Lora | LoraSchedule | None,
    lora_name: str,
    lora_strength: float,
    styles: Styles | None,
    outside: Outside,
    mask_grow: int,
    mask_feather: int,
) -> Prepared:
    """Checks everything that can be checked before the first evaluation. Raises ValueError that names the input."""
    if styles is None:
        return one_style(base, lora, lora_name, lora_strength)
    if lora is not None or lora_name != NO_LORA:
        raise ValueError(
            "styles and lora: both were given, and each says which LoRA acts. "
            f"Unplug lora (and set lora_name to '{NO_LORA}'), or unplug styles."
        )
    return in_regions(base, styles, outside, mask_grow, mask_feather)
