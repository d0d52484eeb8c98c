"""Capture Features/Attention: what the content's own run holds at the chosen sites (method.md section 3)."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.diffusion.shares import steps_in
from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.injection.capture import Capture, CaptureRequest, ContentRun
from ...diffstyler_core.injection.keeper import Keeper
from ...diffstyler_core.injection.sites import Site, format_layers
from ...diffstyler_core.injection.store import STORAGES, FrameStores, Storage
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.numbers import require_number
from ..host.identity import identity
from ..host.lora.run import STRONGEST, LoraRun
from ..host.model import require_compatible, require_family
from ..host.precision import PRECISIONS
from ..host.progress import stop_if_cancelled
from ..host.sampling.capture import Wanted, bytes_needed, captured, keep_in, request_for, require_room
from ..host.sampling.frames import groups_of
from ..host.types import ModelPatcher
from ..inputs.layers import AUTO, readable_layers
from ..inputs.widgets import frames_input, share_input, strength_input


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
            qkv = " with values" if kind == "self-attention" and request.values else ""
            lines.append(f"{kind}{qkv} of layers {layers}, {count} of {steps} steps")
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
            "Layers are decoder layers (output blocks): auto, a list like 4-11 or 4,6-8, all; empty for none.",
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
                io.String.Input(
                    "feature_layers",
                    default=AUTO,
                    tooltip="ResBlocks to take hidden states from. auto: the one that sees of this picture what the "
                    "paper's layer 4 sees at 512; which, the node says.",
                ),
                io.String.Input(
                    "self_attention_layers",
                    default=AUTO,
                    tooltip="Layers to take self-attention q, k from. auto: from the feature layer on, 4-11 in the "
                    "paper; with values on, those that Training-free Style takes.",
                ),
                io.String.Input(
                    "cross_attention_layers",
                    default="",
                    tooltip="Layers to take cross-attention q, k from. The 2024 paper injects them too "
                    "(4-11); auto: those of the self-attention.",
                    advanced=True,
                ),
                share_input(
                    "feature_end_percent",
                    1.0,
                    "Keeps features up to this share of the run. 1 keeps all that a sampler may ask for; less takes "
                    "less room, and windows cannot be longer.",
                    rare=True,
                ),
                share_input(
                    "attention_end_percent",
                    1.0,
                    "Keeps attention up to this share of the run. Adaptive attention needs 1; fixed attention only "
                    "its window.",
                    rare=True,
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
                io.Boolean.Input(
                    "values",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Also keeps self-attention's v, for a style picture's capture that Training-free Style "
                    "takes. Half as much again to keep.",
                ),
                frames_input("captured"),
            ],
            outputs=[
                sockets.Features.Output("features", tooltip="For the Injected LoRA Sampler, or Training-free Style.")
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(
        cls,
        feature_layers: str | None = "",
        self_attention_layers: str | None = "",
        cross_attention_layers: str | None = "",
    ) -> bool | str:
        """Lists that cannot be read are refused before anything is run."""
        return readable_layers(
            feature_layers=feature_layers,
            self_attention_layers=self_attention_layers,
            cross_attention_layers=cross_attention_layers,
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
        feature_end_percent: float,
        attention_end_percent: float,
        storage: Storage,
        precision: str,
        lora_strength: float = 1.0,
        lora: Lora | LoraSchedule | None = None,
        values: bool = False,
        frames_at_once: int = 0,
    ) -> io.NodeOutput:
        require_compatible(model)
        require_family(model, trajectory.family, "trajectory")
        steps = trajectory.schedule.steps
        require_number(feature_end_percent, "feature_end_percent", 0.0, 1.0)
        require_number(attention_end_percent, "attention_end_percent", 0.0, 1.0)
        ends = steps_in(feature_end_percent, steps), steps_in(attention_end_percent, steps)
        wanted = Wanted(feature_layers, self_attention_layers, cross_attention_layers)
        request, chosen = request_for(model, trajectory.content, wanted, *ends, values)
        request.check(steps)
        require_conditioning(source, model, "source", one=True)
        require_number(lora_strength, "lora_strength", -STRONGEST, STRONGEST)
        run = LoraRun(model, lora, lora_strength, "lora", steps)
        store, repeated = None, None
        if storage == "recompute":
            repeated = model
            size = "nothing stored: recomputed while sampling, one more UNet row a step"
        else:
            keeper, frames = Keeper(PRECISIONS[precision]), trajectory.frame_count
            needed = bytes_needed(model, request, trajectory.content, source, keeper.dtype)
            require_room(storage, needed, frames, keeper.dtype.itemsize > 2)
            groups, per = groups_of(frames, frames_at_once), f" for {frames} frames" if frames > 1 else ""
            stores = []
            for group in groups:
                some = trajectory.frames(group.start, group.stop)
                name = group.step(f"{needed / 1e6:.0f} MB in {storage}{per}, step")
                stores.append(captured(model, some, source, run, request, keeper, keep_in(storage), name))
            store = stores[0] if len(stores) == 1 else FrameStores(stores)
            kept = f"{store.nbytes / 1e6:.1f} MB in {storage}{per} ({kept_as(keeper, precision)})"
            size = f"{kept}, {request.steps() * len(groups)} UNet evaluations"
        lines = [*describe(request, steps), *chosen, size, *run.notes]
        if lora is not None:
            lines.append("of the base model: the LoRA's strength is 0" if run.bare else "of the UNet with the LoRA")
        if identity(source) != trajectory.source:
            lines.append("note: another prompt than the inversion's")
        stop_if_cancelled()
        capture = Capture(trajectory, request, ContentRun(source, lora, lora_strength, repeated), store)
        return host_text.output(capture, text="\n".join(lines))
