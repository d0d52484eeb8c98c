"""The decoder's features under several models at one step.

All models see the same latent z_t of one trajectory and the same prompt, so what differs is the weights alone.
"""

from __future__ import annotations

from typing import NamedTuple

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.evaluation.features import nearest_step
from ....diffstyler_core.injection.keeper import Keeper
from ....diffstyler_core.injection.sites import Site, parse_layers
from ....diffstyler_core.injection.taps import Recorder
from ....diffstyler_core.lora.schedule import Lora
from ..checks.conditioning import Conditioning, require_conditioning
from ..checks.numbers import require_number
from ..identity import identity
from ..lora.adapters import ForwardLora
from ..lora.run import STRONGEST
from ..model import layout_of, require_compatible, require_family
from .forward import Acting
from .runs import SourceGuider, denoise_content, run_guider, to_exploding

LayerFeatures = dict[int, Tensor]
"""Layer by layer the hidden state [1, C, H, W], fp32 on the CPU."""


class FeatureRequest(NamedTuple):
    """The nodes' inputs under their own names."""

    model: ModelPatcher
    trajectory: Trajectory
    source: Conditioning
    layers: str
    timestep: int
    lora_strength: float
    second_model: ModelPatcher | None = None
    lora: Lora | None = None


class FeaturesByModel(NamedTuple):
    """The features of one step, at timestep t, by the models' names; the base first.

    notes: which step it was, what it cost, and what to mind.
    """

    t: int
    models: dict[str, LayerFeatures]
    notes: tuple[str, ...]


class Variant(NamedTuple):
    """A model to evaluate, with the LoRA that acts in it."""

    model: ModelPatcher
    lora: ForwardLora | None = None


def evaluate_features(request: FeatureRequest) -> FeaturesByModel:
    """Checks all inputs, then evaluates each model once. Raises ValueError before the first evaluation."""
    schedule = request.trajectory.schedule
    require_compatible(request.model)
    require_family(request.model, request.trajectory.family, "trajectory")
    if request.trajectory.frame_count != 1:
        raise ValueError(
            f"trajectory: one picture is looked at, got a batch of {request.trajectory.frame_count}. "
            "Invert one, with 'Image From Batch'."
        )
    sites = _sites(request)
    step = nearest_step(schedule.timesteps, request.timestep, len(schedule.abar))
    require_number(request.lora_strength, "lora_strength", -STRONGEST, STRONGEST)
    require_conditioning(request.source, request.model, "source", one=True)
    variants = _variants(request)
    features = {name: _features(request, variant, step, sites) for name, variant in variants.items()}
    comfy.model_management.throw_exception_if_processing_interrupted()
    of_loras = [note for _, lora in variants.values() if lora is not None for note in lora.notes]
    return FeaturesByModel(schedule.timesteps[step], features, (*_notes(request, step, features), *of_loras))


def _sites(request: FeatureRequest) -> tuple[Site, ...]:
    layers = parse_layers(request.layers, "layers")
    if not layers:
        raise ValueError(
            f"layers: at least one decoder layer is needed, got {request.layers!r}. Write them like '2,5,7'."
        )
    return layout_of(request.model).sites("feature", layers)


def _variants(request: FeatureRequest) -> dict[str, Variant]:
    """Every model to evaluate under its name, checked to fit. The second one last: the host loads each only once."""
    variants = {"base": Variant(request.model)}
    if request.lora is not None:
        lora = ForwardLora(request.model, request.lora, request.lora_strength, "lora")
        acting = lora if request.lora_strength != 0.0 else None
        variants[f"LoRA x {request.lora_strength:g}"] = Variant(request.model, acting)
    if request.second_model is not None:
        require_compatible(request.second_model, "second_model")
        require_family(request.second_model, request.trajectory.family, "trajectory, as second_model sees it,")
        variants["second model"] = Variant(request.second_model)
    return variants


def _features(request: FeatureRequest, variant: Variant, step: int, sites: tuple[Site, ...]) -> LayerFeatures:
    """Of each layer's ResBlock before the skip connection. One UNet evaluation."""
    guider = SourceGuider(variant.model)
    guider.set_source(request.source)
    recorder = Recorder(frozenset(sites), Keeper(torch.float32))
    guider.acting = Acting(variant.lora, recorder)

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        on_step(0, 1, denoise_content(denoise, request.trajectory, step, x))
        return x

    schedule = request.trajectory.schedule
    run_guider(guider, to_exploding(request.trajectory.noise, schedule), run, schedule, 1)
    return {site.layer: recorder.taken[site][0] for site in sites}


def _notes(request: FeatureRequest, step: int, features: dict[str, LayerFeatures]) -> list[str]:
    schedule = request.trajectory.schedule
    t = schedule.timesteps[step]
    asked = "" if t == request.timestep else f", the nearest to {request.timestep}"
    lines = [f"step {step} of {schedule.steps}, t = {t}{asked}; {len(features)} UNet evaluations"]
    base, *others = features.items()
    same = [name for name, other in others if all(torch.equal(other[layer], base[1][layer]) for layer in other)]
    lines += [f"note: {name} gives exactly the base's features: nothing acts in it" for name in same]
    if identity(request.source) != request.trajectory.source:
        lines.append("note: another prompt than the inversion's")
    return lines
