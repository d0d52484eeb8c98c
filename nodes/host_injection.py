"""What the inputs of the Injected LoRA Sampler and Guider mean: checked, and turned into branches and a plan."""

from __future__ import annotations

import os
from typing import NamedTuple

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..diffstyler_core.attention import Blend
from ..diffstyler_core.capture import Capture
from ..diffstyler_core.lora_schedule import Lora, LoraSchedule
from ..diffstyler_core.plan import InjectionPlan, Mode
from ..diffstyler_core.presets import CUSTOM, Windows, windows
from ..diffstyler_core.regions import OUTSIDES, Outside, Regions
from ..diffstyler_core.style import Styles, regions_of
from .host_fusion import Branch, LoraAt
from .host_lora import NO_LORA, ForwardLora, lora_from_file
from .host_model import require_family


class Injection(NamedTuple):
    """A checked request: what is injected when, which branches are predicted, and where the content stays.

    inside: [h, w], the styles' share where the content is kept outside; None where nothing is kept.
    words: what the user should know about it.
    """

    plan: InjectionPlan
    branches: tuple[Branch, ...]
    inside: Tensor | None
    words: str


class Settings(NamedTuple):
    """The nodes' inputs that say what is injected and which styles act, under their own names."""

    feature_steps: int
    attention_steps: int
    attention_mode: Mode
    blend: Blend
    lora_name: str
    lora_strength: float
    lora: Lora | LoraSchedule | None = None
    styles: Styles | None = None
    outside: Outside = "content"
    mask_grow: int = 0
    mask_feather: int = 0
    preset: str = CUSTOM

    def windows(self, steps: int) -> Windows:
        """When and how the content is injected: the preset's own settings, or those of the widgets."""
        if self.preset != CUSTOM:
            return windows(self.preset, steps)
        return Windows(self.feature_steps, self.attention_steps, self.attention_mode, self.blend)


def prepare(model: ModelPatcher, features: Capture, settings: Settings) -> Injection:
    """Checks everything that can be checked before the first evaluation. Raises ValueError."""
    trajectory, request = features.trajectory, features.request
    require_family(model, trajectory.family, "features")
    chosen = settings.windows(trajectory.schedule.steps)
    plan = InjectionPlan(
        trajectory.schedule.steps,
        chosen.feature_steps,
        chosen.attention_steps,
        request.feature_sites,
        request.attention_sites,
        chosen.attention_mode,
        chosen.blend,
    )
    features.check_covers(plan)
    words = [f"{plan.steps} steps, attention threshold T_a = {plan.threshold:.0f}"]
    words += [f"preset {settings.preset}: {chosen}"] if settings.preset != CUSTOM else []
    styles = settings.styles
    if styles is None:
        lora = _one_lora(model, settings, plan.steps)
        branch = Branch(torch.ones(trajectory.content.shape[-2:]), lora)
        bare = not any(lora(step) for step in range(plan.steps))
        return Injection(plan, (branch,), None, "\n".join(words + ["no style LoRA: base model"] * bare))
    regions = _regions(model, features, styles, settings)
    branches, inside = _branches(model, styles, regions, settings.outside, plan.steps)
    words += [f"style {i}: {100 * r.mean().item():.1f} % of the picture" for i, r in enumerate(regions.styles, 1)]
    kept = "the content" if settings.outside == "content" else "the base model's picture"
    words += [f"outside: {kept}, {100 * regions.rest.mean().item():.1f} %"] if regions.rest.any() else []
    return Injection(plan, branches, inside, "\n".join(words))


def _regions(model: ModelPatcher, features: Capture, styles: Styles, settings: Settings) -> Regions:
    if settings.lora is not None or settings.lora_name != NO_LORA:
        raise ValueError(
            "styles and lora: both were given, and each says which LoRA acts. "
            f"Unplug lora (and set lora_name to '{NO_LORA}'), or unplug styles."
        )
    scale = model.get_model_object("latent_format").spacial_downscale_ratio
    height, width = features.trajectory.content.shape[-2:]
    size = (height * scale, width * scale)
    return regions_of(styles, (height, width), size, settings.mask_grow, settings.mask_feather)


def _branches(
    model: ModelPatcher, styles: Styles, regions: Regions, outside: Outside, steps: int
) -> tuple[tuple[Branch, ...], Tensor | None]:
    """(the branches that count anywhere, the inside where the content is kept): a share of zero costs nothing."""
    if outside not in OUTSIDES:
        raise ValueError(f"outside must be one of {OUTSIDES}, got {outside!r}.")
    keep = outside == "content"
    shares = regions.among_styles() if keep else regions.styles
    branches = []
    for number, (style, share) in enumerate(zip(styles, shares, strict=True), 1):
        lora = lora_at(model, style.lora, style.strength, f"style {number}", steps)
        if share.any():
            branches.append(Branch(share, lora, style.positive))  # type: ignore[arg-type]
    if not keep and regions.rest.any():
        branches.append(Branch(regions.rest, lambda step: None))
    return tuple(branches), regions.inside if keep and regions.rest.any() else None


def _one_lora(model: ModelPatcher, settings: Settings, steps: int) -> LoraAt:
    """The wired LoRA or schedule, or the chosen file, of a graph without styles."""
    lora, name, strength = settings.lora, settings.lora_name, settings.lora_strength
    if lora is not None and name != NO_LORA:
        raise ValueError(
            f"lora and lora_name: both a wired LoRA and the file {name!r} were given. "
            f"Set lora_name to '{NO_LORA}', or unplug lora."
        )
    if name != NO_LORA:
        return lora_at(model, lora_from_file(name), strength, f"lora_name: {name!r}", steps)
    return (lambda step: None) if lora is None else lora_at(model, lora, strength, "lora", steps)


def lora_at(model: ModelPatcher, lora: Lora | LoraSchedule, strength: float, name: str, steps: int) -> LoraAt:
    """Which LoRA acts at which step (eq. 9), each made ready for the forward pass once.

    Raises ValueError when a LoRA does not fit the model or a schedule reaches beyond the run.
    """
    if not isinstance(lora, LoraSchedule):
        constant = ForwardLora(model, lora, strength, name)
        return lambda step: constant if strength != 0.0 else None
    lora.check(steps)
    ready = {entry.start_at_step: ForwardLora(model, entry.lora, 1.0, f"{name}, {entry}") for entry in lora.entries}

    def at(step: int) -> ForwardLora | None:
        entry = lora.at(step)
        value = 0.0 if entry is None else entry.strength_at(step) * strength
        return None if entry is None or value == 0.0 else ready[entry.start_at_step].at(value)

    return at


def file_fingerprint(lora_name: str) -> str:
    """A changed file is another LoRA, though its name is the same."""
    path = None if lora_name == NO_LORA else folder_paths.get_full_path("loras", lora_name)
    return "" if path is None else f"{os.stat(path).st_mtime_ns}"
