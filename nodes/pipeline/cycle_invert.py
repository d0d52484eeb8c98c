"""CycleDiffusion Invert: a random path to a picture, and the noise of each of its steps (DPM-Encoder)."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ...diffstyler_core.diffusion.schedule import NoiseSchedule
from ...diffstyler_core.diffusion.stochastic import FORMULAS, Formula, require_eta
from ...diffstyler_core.metrics.pixels import latent_psnr
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.latents import as_latent, latent_notes, one_latent
from ..host.checks.numbers import require_number
from ..host.model import require_compatible, schedule_of
from ..host.sampling.cycle import SourcePrompts, decode_latent, encode_latent
from ..host.types import ExecutionBlocker, ModelPatcher

NOT_RECONSTRUCTED = "CycleDiffusion Invert: the reconstruction output is used, but reconstruct is off. Switch it on."
LARGEST_SEED = 2**64 - 1


class CycleDiffusionInvert(io.ComfyNode):
    """Stochastic inversion of one content latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_CycleDiffusionInvert",
            display_name="CycleDiffusion Invert",
            category=sockets.CATEGORY,
            description="Finds the noise that every step of a random (stochastic DDIM) run would have to add to arrive "
            "at the picture. Sampled with the same prompt and noises the picture comes back; with another prompt and "
            "high guidance it is painted anew and keeps its structure. No capture is needed.",
            search_aliases=[
                "cyclediffusion",
                "cycle diffusion",
                "dpm encoder",
                "ddpm inversion",
                "edit friendly inversion",
                "stochastic inversion",
                "noise inversion",
                "unsampler",
                "dual style",
                "image to noise",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The base model, as on the sampler."),
                io.Latent.Input("latent", tooltip="The content picture, encoded with this checkpoint's VAE."),
                io.Conditioning.Input(
                    "source", tooltip="Prompt that describes the picture as it is, e.g. 'a photo of a house'."
                ),
                io.Int.Input(
                    "steps", default=100, min=1, max=999, tooltip="Steps of the whole run. CycleDiffusion uses 100."
                ),
                io.Int.Input(
                    "skip",
                    default=10,
                    min=0,
                    max=998,
                    tooltip="Noisiest steps to leave out: more keeps more of the picture. steps - skip are run.",
                ),
                io.Float.Input(
                    "eta",
                    default=0.1,
                    min=0.001,
                    max=1.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="How random the steps are. More carries more of the picture over in the noises. How far it "
                    "goes depends on formula and steps; beyond that it is refused with the largest one.",
                ),
                io.Combo.Input(
                    "formula",
                    options=list(FORMULAS),
                    default=FORMULAS[0],
                    tooltip="sigma_t. dual-style: as the dual-style document prints it; eta up to 0.18 at 100 steps. "
                    "DDIM: as DDIM (eq. 16) and CycleDiffusion's code have it, the first ratio the other way up: less "
                    "noise in the last steps; eta up to 1.",
                    advanced=True,
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance while encoding. 1, as in the document, is none; others need negative and cost "
                    "twice as much.",
                    advanced=True,
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=LARGEST_SEED,
                    control_after_generate=True,
                    tooltip="Of the random path. Another seed gives another variant of the result.",
                ),
                io.Boolean.Input(
                    "reconstruct",
                    default=True,
                    tooltip="Samples the content back and shows how well it came back (PSNR in latent space). "
                    "Costs as many UNet evaluations again.",
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What cfg guides away from. Only used when cfg is not 1."
                ),
            ],
            outputs=[
                sockets.Trajectory.Output(
                    "trajectory",
                    tooltip="For features of the Injected LoRA Sampler or Guider, or for Capture Features/Attention.",
                ),
                io.Latent.Output("x_T", tooltip="The noisiest latent: latent_image for SamplerCustomAdvanced."),
                io.Latent.Output(
                    "reconstruction",
                    tooltip="The content sampled back. Needs reconstruct; off, what follows is not run.",
                ),
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        latent: dict[str, Any],
        source: Conditioning,
        steps: int,
        skip: int,
        eta: float,
        formula: Formula,
        cfg: float,
        seed: int,
        reconstruct: bool,
        negative: Conditioning | None = None,
    ) -> io.NodeOutput:
        require_compatible(model)
        schedule = schedule_of(model, steps).without_first(skip)
        require_eta(schedule, eta, formula)
        samples = one_latent(latent, model, "latent")
        prompts = _prompts(model, source, negative, cfg)
        require_number(seed, "seed", 0, LARGEST_SEED)
        trajectory, x_T = encode_latent(model, samples, prompts, schedule, eta, formula, seed)
        lines = [_said(schedule, cfg, f"{trajectory.noises}, {trajectory.megabytes:.1f} MB")]
        reconstruction: Any = ExecutionBlocker(NOT_RECONSTRUCTED)
        if reconstruct:
            back = decode_latent(model, x_T, prompts, trajectory)
            lines.append(f"reconstruction {latent_psnr(samples, back.to(samples)):.1f} dB PSNR in latent space")
            reconstruction = as_latent(back)
        else:
            lines.append("reconstruction not measured (reconstruct is off)")
        if negative is not None and cfg == 1.0:
            lines.append("note: negative is not used, as cfg is 1")
        lines += latent_notes(latent)
        return host_text.output(trajectory, as_latent(x_T), reconstruction, text="\n".join(lines))


def _prompts(model: ModelPatcher, source: Conditioning, negative: Conditioning | None, cfg: float) -> SourcePrompts:
    """The prompts of the content's run, checked. Raises ValueError."""
    require_conditioning(source, model, "source", one=True)
    require_number(cfg, "cfg", 0.0, 100.0)
    if negative is not None:
        require_conditioning(negative, model, "negative", one=True)
    elif cfg != 1.0:
        raise ValueError(
            f"negative: guidance of {cfg:g} needs a prompt to guide away from, got none. Wire CLIP Text Encode (the "
            "empty prompt will do), or set cfg to 1."
        )
    return SourcePrompts(source, negative, cfg)


def _said(schedule: NoiseSchedule, cfg: float, more: str) -> str:
    """What was run, and from where."""
    first = schedule.timesteps[0]
    left = 100 * math.sqrt(schedule.abar[first])
    rows = "UNet evaluations" + ("" if cfg == 1.0 else " of two rows")
    return (
        f"{schedule.steps} of {schedule.steps + schedule.skipped} steps, {schedule.steps} {rows}, {more}\n"
        f"begins at t = {first} with {left:.0f} % of the picture"
    )
