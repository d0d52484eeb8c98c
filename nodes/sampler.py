"""Injected LoRA Sampler: the style LoRA's run with the content injected (method.md section 4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..diffstyler_core import ddim
from ..diffstyler_core.attention import BLENDS, Blend
from ..diffstyler_core.capture import Capture
from ..diffstyler_core.ddim import Denoiser, OnStep
from ..diffstyler_core.lora_schedule import Lora
from ..diffstyler_core.plan import MODES, InjectionPlan, Mode
from ..diffstyler_core.trajectory import Trajectory
from . import host_text, sockets
from .host_inputs import one_latent
from .host_lora import NO_LORA, ForwardLora, lora_from_file, lora_names
from .host_model import require_family
from .host_sampling import Conditioning, InjectedGuider, run_guider, to_exploding, to_preserving


def sample_injected(
    model: ModelPatcher,
    capture: Capture,
    plan: InjectionPlan,
    lora: Callable[[int], ForwardLora | None],
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    start: Tensor,
) -> Tensor:
    """DDIM sampling of ``start`` (a LATENT's samples at the noisiest level) -> the stylised latent's samples."""
    schedule = capture.trajectory.schedule

    def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
        return ddim.sample(denoise, to_preserving(x, schedule), schedule, on_step)

    guider = InjectedGuider(model, capture, plan, lora)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return run_guider(guider, start, run, schedule, schedule.steps)


def choose_start(model: ModelPatcher, trajectory: Trajectory, latent: dict[str, Any] | None) -> Tensor:
    """The samples that sampling starts from: the trajectory's x_T, or a LATENT of the same size."""
    if latent is None:
        return model.model.process_latent_out(to_exploding(trajectory.noise, trajectory.schedule))
    samples = one_latent(latent, model, "start_latent")
    if samples.shape != trajectory.noise.shape:
        raise ValueError(
            f"start_latent: {list(samples.shape)} does not fit the trajectory's {list(trajectory.noise.shape)}. "
            "Use the x_T of DDIM Invert, or a latent of the content's size."
        )
    return samples


def style_lora(model: ModelPatcher, lora: Lora | None, lora_name: str, strength: float) -> ForwardLora | None:
    """The wired LoRA or the chosen file, ready for the forward pass; None for neither, or for strength 0."""
    if lora is not None and lora_name != NO_LORA:
        raise ValueError(
            f"lora and lora_name: both a wired LoRA and the file {lora_name!r} were given. "
            f"Set lora_name to '{NO_LORA}', or unplug lora."
        )
    name = "lora" if lora is not None else f"lora_name: {lora_name!r}"
    state = lora if lora is not None else None if lora_name == NO_LORA else lora_from_file(lora_name)
    if state is None:
        return None
    forward = ForwardLora(model, state, strength, name)
    return forward if strength != 0.0 else None


class InjectedLoRASampler(io.ComfyNode):
    """Sampling with a style LoRA while the content's features and attention are injected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_InjectedSampler",
            display_name="Injected LoRA Sampler",
            category=sockets.CATEGORY,
            description="Samples with the style LoRA while the content's features and attention hold its structure. "
            "Starts from the content's own noise and takes its steps from the trajectory (DDIM).",
            search_aliases=["style transfer", "plug and play", "diffstyler"],
            inputs=[
                io.Model.Input("model", tooltip="The base model; the style LoRA is applied inside this node."),
                sockets.Features.Input("features", tooltip="From Capture Features/Attention."),
                io.Conditioning.Input("positive", tooltip="Prompt with the style's token, as in training."),
                io.Conditioning.Input(
                    "negative", tooltip="The paper's authors: ugly, blurry, black, low res, unrealistic."
                ),
                io.Float.Input(
                    "cfg",
                    default=10.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance scale. The authors use 10.5; 1 switches guidance off and halves the work.",
                ),
                io.Int.Input(
                    "feature_steps",
                    default=30,
                    min=0,
                    max=999,
                    tooltip="The content's features override the style run's for this many first steps.",
                ),
                io.Int.Input(
                    "attention_steps",
                    default=25,
                    min=0,
                    max=999,
                    tooltip="The content's attention overrides fully for this many first steps. More keeps more.",
                ),
                io.Combo.Input(
                    "attention_mode",
                    options=list(MODES),
                    default="adaptive",
                    tooltip="adaptive: after attention_steps the style's own attention comes in gradually (2026). "
                    "fixed: the content's attention stops there (2024).",
                ),
                io.Combo.Input(
                    "blend",
                    options=list(BLENDS),
                    default="qk",
                    tooltip="What adaptive attention blends: q and k before the softmax, or the two attention maps.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "lora_name",
                    options=[NO_LORA, *lora_names()],
                    default=NO_LORA,
                    tooltip="A file of models/loras, instead of lora.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Strength of the style LoRA.",
                ),
                sockets.LoraModel.Input("lora", optional=True, tooltip="From Train Style LoRA or Load LoRA Model."),
                io.Latent.Input(
                    "start_latent",
                    optional=True,
                    tooltip="Starts here instead of the content's noise, e.g. from a changed x_T of its size.",
                ),
            ],
            outputs=[io.Latent.Output("latent", tooltip="The stylised picture; decode it with the VAE.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str = NO_LORA, **_: Any) -> str:
        """A changed file is another LoRA, though its name is the same."""
        path = None if lora_name == NO_LORA else folder_paths.get_full_path("loras", lora_name)
        return "" if path is None else f"{os.stat(path).st_mtime_ns}"

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        features: Capture,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        feature_steps: int,
        attention_steps: int,
        attention_mode: Mode,
        blend: Blend,
        lora_name: str,
        lora_strength: float,
        lora: Lora | None = None,
        start_latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        trajectory, request = features.trajectory, features.request
        require_family(model, trajectory.family, "features")
        plan = InjectionPlan(
            trajectory.schedule.steps,
            feature_steps,
            attention_steps,
            request.feature_sites,
            request.attention_sites,
            attention_mode,
            blend,
        )
        features.check_covers(plan)
        start = choose_start(model, trajectory, start_latent)
        style = style_lora(model, lora, lora_name, lora_strength)
        samples = sample_injected(model, features, plan, lambda step: style, positive, negative, cfg, start)
        text = f"{trajectory.schedule.steps} steps, attention threshold T_a = {plan.threshold:.0f}" + (
            "" if style else "\nno style LoRA: base model"
        )
        return host_text.output({"samples": samples.to("cpu", torch.float32)}, text=text, node=cls)
