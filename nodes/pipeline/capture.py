"""Capture Features/Attention: what the content's own run holds at the chosen sites (method.md section 3)."""

from __future__ import annotations

import math
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import comfy.memory_management
import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.injection.capture import (
    STORAGES,
    Capture,
    CaptureRequest,
    ContentRun,
    DiskStore,
    MemoryStore,
    Storage,
    flatten,
)
from ...diffstyler_core.injection.keeper import Keeper, require_finite
from ...diffstyler_core.injection.sites import Site, format_layers, parse_layers
from ...diffstyler_core.injection.size import fitting
from ...diffstyler_core.injection.taps import Recorder, SiteTensors
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from .. import sockets
from ..host import text as host_text
from ..host.inputs import Conditioning, require_conditioning, require_number
from ..host.lora.run import STRONGEST, LoraRun
from ..host.model import identity, layout_of, require_compatible, require_family
from ..host.sampling.forward import Acting
from ..host.sampling.runs import SourceGuider, denoise_content, run_guider, to_exploding
from ..inputs.widgets import strength_input

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

Keep = Callable[[Iterator[SiteTensors]], MemoryStore | DiskStore]


def request_for(
    model: ModelPatcher,
    feature: str,
    self_attention: str,
    cross_attention: str,
    feature_steps: int,
    attention_steps: int,
) -> CaptureRequest:
    """The request that the layer lists and numbers of steps stand for, checked against this UNet."""
    layout = layout_of(model)
    return CaptureRequest(
        layout.sites("feature", parse_layers(feature, "feature_layers")),
        layout.sites("self-attention", parse_layers(self_attention, "self_attention_layers"))
        + layout.sites("cross-attention", parse_layers(cross_attention, "cross_attention_layers")),
        feature_steps,
        attention_steps,
    )


def capture_run(
    model: ModelPatcher,
    trajectory: Trajectory,
    conditioning: Conditioning,
    lora: LoraRun,
    request: CaptureRequest,
    keeper: Keeper,
    keep: Keep,
) -> MemoryStore | DiskStore:
    """One UNet evaluation per step that has anything to take: the content at (z_t, t), as its own run sees it.

    keeper: how a tensor is kept. keep: where the steps are. Raises ValueError when the UNet gives NaN or Inf, and
    when the steps do not fit where they are kept.
    """
    guider = SourceGuider(model)
    guider.set_source(conditioning)
    schedule, kept = trajectory.schedule, []

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        def steps() -> Iterator[SiteTensors]:
            for step in range(request.steps()):
                sites = request.sites_at(step)
                recorder = Recorder(frozenset(sites), keeper)
                guider.acting = Acting(lora.at(step), recorder)
                x0 = denoise_content(denoise, trajectory, step, x)
                require_finite(step, recorder.taken)
                yield flatten(recorder.taken, sites)
                on_step(step, request.steps(), x0)

        kept.append(keep(steps()))
        return x

    run_guider(guider, to_exploding(trajectory.noise, schedule), run, schedule, request.steps())
    return kept[0]


def keep_in(storage: Storage, request: CaptureRequest) -> Keep:
    """Where captured steps go, if they fit. Files go below the host's temp directory."""
    sites = [request.sites_at(step) for step in range(request.steps())]
    if storage == "memory":
        return lambda steps: MemoryStore(fitting(steps, sites, "memory", room_in_memory))
    folder = Path(folder_paths.get_temp_directory()) / "diffstyler" / uuid.uuid4().hex
    return lambda steps: DiskStore(folder, fitting(steps, sites, "disk", lambda _: shutil.disk_usage(folder).free))


def room_in_memory(wanted: int) -> float:
    """Bytes of RAM that a capture may still take; a tenth of what is free is left to everything else.

    The host lets go of cached results that this prompt does not use, where fewer than ``wanted`` bytes are free.
    """
    comfy.memory_management.extra_ram_release(math.ceil(wanted / 0.9))
    return 0.9 * comfy.model_management.get_free_memory(torch.device("cpu"))


def kept_as(keeper: Keeper, precision: str) -> str:
    """In which precision a capture is kept, in words."""
    if not keeper.widened:
        return precision
    return f"{precision}; {keeper.widened} of {keeper.kept} tensors exceed fp16 and are kept in bf16"


def describe(request: CaptureRequest, steps: int) -> list[str]:
    """What was kept, in words."""
    lines = []
    for kind, count in (
        ("feature", request.feature_steps),
        ("self-attention", request.attention_steps),
        ("cross-attention", request.attention_steps),
    ):
        sites: tuple[Site, ...] = request.feature_sites if kind == "feature" else request.attention_sites
        layers = format_layers(tuple(s.layer for s in sites if s.kind == kind))
        if layers and count:
            lines.append(f"{kind} of layers {layers}, {count} of {steps} steps")
    return lines


class CaptureFeatures(io.ComfyNode):
    """Capture of features and attention along a trajectory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_Capture",
            display_name="Capture Features/Attention",
            category=sockets.CATEGORY,
            description="Takes the features and the attention of the content's own run, for the sampler to inject. "
            "Layers are decoder layers (output blocks), written like 4-11 or 4,6-8; empty for none.",
            search_aliases=[
                "plug and play",
                "pnp",
                "pnp features",
                "injection",
                "attention injection",
                "feature injection",
                "keep structure",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The base model, as on the sampler."),
                sockets.Trajectory.Input("trajectory", tooltip="From DDIM Invert."),
                io.Conditioning.Input("source", tooltip="Prompt of the content's run; usually the empty prompt."),
                io.String.Input("feature_layers", default="4", tooltip="ResBlocks to take hidden states from."),
                io.String.Input(
                    "self_attention_layers", default="4-11", tooltip="Layers to take self-attention q, k from."
                ),
                io.String.Input(
                    "cross_attention_layers",
                    default="",
                    tooltip="Layers to take cross-attention q, k from. The 2024 paper injects them too (4-11).",
                    advanced=True,
                ),
                io.Int.Input(
                    "feature_steps",
                    default=30,
                    min=0,
                    max=999,
                    tooltip="Keep features for this many first steps. The sampler's feature window cannot be longer.",
                ),
                io.Int.Input(
                    "attention_steps",
                    default=50,
                    min=0,
                    max=999,
                    tooltip="Keep attention for this many first steps. Adaptive attention needs all steps of the "
                    "trajectory; fixed attention only its window.",
                ),
                io.Combo.Input(
                    "storage",
                    options=list(STORAGES),
                    default="memory",
                    tooltip="memory: RAM. disk: temporary files, read step by step. recompute: stores nothing, "
                    "and the sampler evaluates the content once more at each step.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="fp16",
                    tooltip="Number format of what is kept.",
                    advanced=True,
                ),
                strength_input("lora_strength", "Strength of lora. Without a LoRA it does nothing.", rare=True),
                io.MultiType.Input(
                    "lora",
                    types=[sockets.LoraModel, sockets.LoraSchedule],
                    optional=True,
                    tooltip="Captures the content's run of the UNet with this LoRA, as the method's original "
                    "implementation does for each style. Without: the base model's run (paper).",
                ),
            ],
            outputs=[sockets.Features.Output("features", tooltip="For the Injected LoRA Sampler.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        trajectory: Trajectory,
        source: Conditioning,
        feature_layers: str,
        self_attention_layers: str,
        cross_attention_layers: str,
        feature_steps: int,
        attention_steps: int,
        storage: Storage,
        precision: str,
        lora_strength: float = 1.0,
        lora: Lora | LoraSchedule | None = None,
    ) -> io.NodeOutput:
        require_compatible(model)
        require_family(model, trajectory.family, "trajectory")
        request = request_for(
            model, feature_layers, self_attention_layers, cross_attention_layers, feature_steps, attention_steps
        )
        steps = trajectory.schedule.steps
        request.check(steps)
        require_conditioning(source, model, "source", one=True)
        require_number(lora_strength, "lora_strength", -STRONGEST, STRONGEST)
        run = LoraRun(model, lora, lora_strength, "lora", steps)
        store, repeated = None, None
        if storage == "recompute":
            repeated = model
            size = "nothing stored: recomputed while sampling, one more UNet row a step"
        else:
            keeper = Keeper(PRECISIONS[precision])
            store = capture_run(model, trajectory, source, run, request, keeper, keep_in(storage, request))
            kept = f"{store.nbytes / 1e6:.1f} MB in {storage} ({kept_as(keeper, precision)})"
            size = f"{kept}, {request.steps()} UNet evaluations"
        lines = [*describe(request, steps), size, *run.notes]
        if lora is not None:
            lines.append("of the base model: the LoRA's strength is 0" if run.bare else "of the UNet with the LoRA")
        if identity(source) != trajectory.source:
            lines.append("note: another prompt than the inversion's")
        comfy.model_management.throw_exception_if_processing_interrupted()
        capture = Capture(trajectory, request, ContentRun(source, lora, lora_strength, repeated), store)
        return host_text.output(capture, text="\n".join(lines), node=cls)
