"""What Feature PCA and Feature Similarity share: their inputs, and the features of several models at one step.

All models see the same latent z_t of one trajectory and the same prompt, so what differs is the weights alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.evaluation.analysis import nearest_step
from ...diffstyler_core.injection.keeper import Keeper
from ...diffstyler_core.injection.sites import Site, parse_layers
from ...diffstyler_core.injection.taps import Recorder
from ...diffstyler_core.lora.schedule import Lora
from .. import sockets
from ..host.inputs import Conditioning, require_conditioning, require_number
from ..host.lora.adapters import ForwardLora
from ..host.lora.run import STRONGEST
from ..host.model import identity, layout_of, require_compatible, require_family
from ..host.progress import stop_if_cancelled
from ..host.sampling.forward import Acting
from ..host.sampling.runs import SourceGuider, denoise_content, run_guider, to_exploding
from ..host.types import ModelPatcher
from .widgets import strength_input

ANALYSIS = f"{sockets.CATEGORY}/evaluate"


class Looked(NamedTuple):
    """The features of one step.

    columns: per model its name and, layer by layer, the hidden state [1, C, H, W] (fp32, CPU); the base first.
    words: which step it was, what it cost, and what to mind.
    """

    t: int
    columns: dict[str, dict[int, Tensor]]
    words: tuple[str, ...]


class Wired(NamedTuple):
    """The nodes' inputs under their own names."""

    model: ModelPatcher
    trajectory: Trajectory
    source: Conditioning
    layers: str
    timestep: int
    lora_strength: float
    second_model: ModelPatcher | None = None
    lora: Lora | None = None


def feature_inputs(lora_needed: bool) -> list[io.Input]:
    """The inputs of both nodes, in their published order."""
    needed = "Wire this, second_model, or both." if lora_needed else "Optional: without it only the base is shown."
    return [
        io.Model.Input("model", tooltip="The base model, without a style LoRA."),
        sockets.Trajectory.Input("trajectory", tooltip="From DDIM Invert: the latent that every model looks at."),
        io.Conditioning.Input("source", tooltip="Prompt that the features are computed with; usually the empty one."),
        io.String.Input(
            "layers",
            default="2,5,7",
            tooltip="Decoder layers (output blocks) as on Capture: 2,5,7 (the paper's) or 0-11.",
        ),
        io.Int.Input(
            "timestep",
            default=540,
            min=0,
            max=999,
            tooltip="Training timestep t: 999 is noise, 0 the picture. The paper looks at 540. "
            "The trajectory's nearest step is taken, and named.",
        ),
        strength_input("lora_strength", "Strength of lora. It does not act on second_model."),
        io.Model.Input(
            "second_model",
            optional=True,
            tooltip="Another model of the same family to compare with, e.g. the base after Load LoRA.",
        ),
        sockets.LoraModel.Input(
            "lora",
            optional=True,
            tooltip=f"From Train Style LoRA or Load LoRA Model, to compare the base with. {needed}",
        ),
    ]


def look(wired: Wired) -> Looked:
    """Checks all inputs, then evaluates each model once. Raises ValueError before the first evaluation."""
    schedule = wired.trajectory.schedule
    require_compatible(wired.model)
    require_family(wired.model, wired.trajectory.family, "trajectory")
    sites = _sites(wired)
    step = nearest_step(schedule.timesteps, wired.timestep, len(schedule.abar))
    require_number(wired.lora_strength, "lora_strength", -STRONGEST, STRONGEST)
    require_conditioning(wired.source, wired.model, "source", one=True)
    models = _columns(wired)
    columns = {name: _features(wired, model, lora, step, sites) for name, (model, lora) in models.items()}
    stop_if_cancelled()
    notes = [note for _, lora in models.values() if lora is not None for note in lora.notes]
    return Looked(schedule.timesteps[step], columns, (*_words(wired, step, columns), *notes))


def _sites(wired: Wired) -> tuple[Site, ...]:
    layers = parse_layers(wired.layers, "layers")
    if not layers:
        raise ValueError(
            f"layers: at least one decoder layer is needed, got {wired.layers!r}. Write them like '2,5,7'."
        )
    return layout_of(wired.model).sites("feature", layers)


def _columns(wired: Wired) -> dict[str, tuple[ModelPatcher, ForwardLora | None]]:
    """Every model to evaluate under its name, checked to fit. The second one last: the host loads each only once."""
    columns: dict[str, tuple[ModelPatcher, ForwardLora | None]] = {"base": (wired.model, None)}
    if wired.lora is not None:
        lora = ForwardLora(wired.model, wired.lora, wired.lora_strength, "lora")
        columns[f"LoRA x {wired.lora_strength:g}"] = (wired.model, lora if wired.lora_strength != 0.0 else None)
    if wired.second_model is not None:
        require_compatible(wired.second_model, "second_model")
        require_family(wired.second_model, wired.trajectory.family, "trajectory, as second_model sees it,")
        columns["second model"] = (wired.second_model, None)
    return columns


def _features(
    wired: Wired, model: ModelPatcher, lora: ForwardLora | None, step: int, sites: tuple[Site, ...]
) -> dict[int, Tensor]:
    """Hidden state [1, C, H, W] of each layer's ResBlock before the skip connection. One UNet evaluation."""
    guider = SourceGuider(model)
    guider.set_source(wired.source)
    recorder = Recorder(frozenset(sites), Keeper(torch.float32))
    guider.acting = Acting(lora, recorder)

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        on_step(0, 1, denoise_content(denoise, wired.trajectory, step, x))
        return x

    schedule = wired.trajectory.schedule
    run_guider(guider, to_exploding(wired.trajectory.noise, schedule), run, schedule, 1)
    return {site.layer: recorder.taken[site][0] for site in sites}


def _words(wired: Wired, step: int, columns: dict[str, dict[int, Tensor]]) -> list[str]:
    schedule = wired.trajectory.schedule
    t = schedule.timesteps[step]
    asked = "" if t == wired.timestep else f", the nearest to {wired.timestep}"
    lines = [f"step {step} of {schedule.steps}, t = {t}{asked}; {len(columns)} UNet evaluations"]
    base, *others = columns.items()
    same = [name for name, other in others if all(torch.equal(other[layer], base[1][layer]) for layer in other)]
    lines += [f"note: {name} gives exactly the base's features: nothing acts in it" for name in same]
    if identity(wired.source) != wired.trajectory.source:
        lines.append("note: another prompt than the inversion's")
    return lines
