"""DDIM Invert: the content's latent, walked back to noise (method.md section 2)."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...diffstyler_core.diffusion.schedule import SPACINGS, Spacing, spacing_note
from ...diffstyler_core.diffusion.trajectory import Trajectory
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.latents import as_latent, latent_notes, some_latents
from ..host.model import require_compatible, schedule_of
from ..host.sampling.frames import groups_of, psnr_words
from ..host.sampling.inversion import invert_latent, reconstruct_latent
from ..host.types import ExecutionBlocker, ModelPatcher
from ..inputs.widgets import frames_input

NOT_RECONSTRUCTED = "DDIM Invert: the reconstruction output is used, but reconstruct is off. Switch it on."


class DDIMInvert(io.ComfyNode):
    """DDIM inversion of one content latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_DDIMInvert",
            display_name="DDIM Invert",
            category=sockets.CATEGORY,
            description="Walks a picture's latent back to the noise that it would be sampled from, and keeps every "
            "latent on the way. The trajectory is what Capture and the sampler take the content's structure from.",
            search_aliases=[
                "ddim inversion",
                "inversion",
                "unsampler",
                "noise inversion",
                "image to noise",
                "latent inversion",
                "reverse sampling",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The base model, without the style LoRA."),
                io.Latent.Input(
                    "latent",
                    tooltip="The content picture, encoded with this checkpoint's VAE; a "
                    "batch of pictures (frames) is inverted at once.",
                ),
                io.Conditioning.Input("source", tooltip="Prompt that describes the content; usually the empty prompt."),
                io.Int.Input(
                    "steps", default=50, min=1, max=999, tooltip="S, the number of sampling steps. The paper uses 50."
                ),
                io.Combo.Input(
                    "spacing",
                    options=list(SPACINGS),
                    default="leading",
                    tooltip="'leading': S inversion steps at DDIM's leading timesteps (2026 paper). 'forward 1000': "
                    "every timestep 1, 2, 3, ... as in the 2024 paper, about 20 times slower and closer to exact.",
                    advanced=True,
                ),
                io.Int.Input(
                    "refinement",
                    default=0,
                    min=0,
                    max=20,
                    tooltip="Fixed-point iterations per step. 0 is plain DDIM, as in the paper; 1 to 5 bring the "
                    "content back nearly exactly. Each costs S more UNet evaluations.",
                ),
                io.Boolean.Input(
                    "reconstruct",
                    default=True,
                    tooltip="Samples the content back and shows how well it came back (PSNR in latent space). "
                    "Costs S more UNet evaluations; switch off when you trust the inversion.",
                ),
                frames_input("inverted"),
            ],
            outputs=[
                sockets.Trajectory.Output("trajectory", tooltip="The content's latent at every step."),
                io.Latent.Output("x_T", tooltip="The noise. Usable with KSampler (Advanced) with add_noise disabled."),
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
        spacing: Spacing,
        refinement: int,
        reconstruct: bool,
        frames_at_once: int = 0,
    ) -> io.NodeOutput:
        require_compatible(model)
        schedule = schedule_of(model, steps, spacing)
        samples = some_latents(latent, model, "latent")
        require_conditioning(source, model, "source", one=True)
        groups = groups_of(len(samples), frames_at_once)
        parts = [invert_latent(model, g.of(samples), source, schedule, refinement, g.step()) for g in groups]
        trajectory, x_T = Trajectory.joined([path for path, _ in parts]), torch.cat([start for _, start in parts])
        evaluations = len(schedule.ascent()) * (1 + refinement) * len(groups)
        frames = "" if len(samples) == 1 else f"{len(samples)} frames, "
        lines = [f"{frames}{schedule.steps} steps, {evaluations} UNet evaluations, {trajectory.megabytes:.1f} MB"]
        if reconstruct:
            named = [(g.of(x_T), g.step("reconstruction step")) for g in groups]
            back = torch.cat([reconstruct_latent(model, x, source, schedule, name=name) for x, name in named])
            lines.append(f"reconstruction {psnr_words(samples, back.to(samples))} PSNR in latent space")
            reconstruction: Any = as_latent(back)
        else:
            lines.append("reconstruction not measured (reconstruct is off)")
            reconstruction = ExecutionBlocker(NOT_RECONSTRUCTED)
        lines += [*filter(None, [spacing_note(schedule)]), *latent_notes(latent)]
        return host_text.output(trajectory, as_latent(x_T), reconstruction, text="\n".join(lines))
