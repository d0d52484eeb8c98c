"""Injected LoRA Sampler: the styles' run with the content injected (method.md sections 4 to 6)."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.settings import InjectionSettings
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from ...diffstyler_core.styles.regions import Outside
from ...diffstyler_core.styles.style import Styles
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.checks.latents import latent_notes
from ..host.lora.files import NO_LORA, file_fingerprint
from ..host.sampling.frames import groups_of, styles_of
from ..host.sampling.injection import Base, prepare, require_run
from ..host.sampling.shared_frames import sharing_words
from ..host.sampling.stylize import choose_start, sample_injected, start_notes
from ..host.types import ModelPatcher
from ..inputs.injection import injected, region_inputs, run_inputs
from ..inputs.preset import Chosen
from ..inputs.widgets import frames_input


class InjectedLoRASampler(io.ComfyNode):
    """Sampling with style LoRAs while the content's features and attention are injected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_InjectedSampler",
            display_name="Injected LoRA Sampler",
            category=sockets.CATEGORY,
            description="Samples with the style LoRA, or with several in their regions, while the content's features "
            "and attention hold its structure. Starts from the content's own noise and takes its steps from the "
            "trajectory (DDIM).",
            search_aliases=[
                "style transfer",
                "stylize",
                "neural style",
                "image to image",
                "img2img",
                "instantstyle",
                "reference style",
                "plug and play",
                "pnp",
                "injection",
                "attention injection",
                "attention couple",
                "regional style",
                "regional prompting",
                "diffstyler",
            ],
            inputs=[
                *run_inputs(),
                *region_inputs(),
                io.Latent.Input(
                    "start_latent",
                    optional=True,
                    tooltip="Starts here instead of the content's noise, e.g. from a changed x_T of its size.",
                ),
                frames_input("sampled"),
            ],
            outputs=[io.Latent.Output("latent", tooltip="The stylised picture; decode it with the VAE.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str = NO_LORA, **_: Any) -> str:
        """A changed file is another LoRA, though its name is the same."""
        return file_fingerprint(lora_name)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        features: Capture | Trajectory,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        lora_name: str,
        lora_strength: float,
        lora: Lora | LoraSchedule | None = None,
        start_latent: dict[str, Any] | None = None,
        styles: Styles | None = None,
        outside: Outside = "content",
        mask_grow: int = 0,
        mask_feather: int = 0,
        preset: Chosen = None,
        injection: InjectionSettings | None = None,
        frames_at_once: int = 0,
    ) -> io.NodeOutput:
        base = Base(model, features, *injected(preset, injection))
        require_run(base, positive, negative, cfg)
        edges = mask_grow, mask_feather
        prepared = prepare(base, lora, lora_name, lora_strength, styles, outside, *edges)
        branches = prepared.composition.branches
        start, samples = choose_start(model, base.trajectory, start_latent, branches), []
        for group in groups_of(base.trajectory.frame_count, frames_at_once):
            part, own = base.of(group), prepared
            if part is not base:
                some = None if styles is None else styles_of(styles, group)
                own = prepare(part, lora, lora_name, lora_strength, some, outside, *edges)
            run = part.trajectory, own.composition, positive, negative, cfg, group.of(start), group.step()
            samples.append(sample_injected(model, *run))
        left = () if start_latent is None else start_notes(branches, "start_latent is wired: it is taken as it is")
        shared = sharing_words(model, base.trajectory.frame_count, frames_at_once)
        words = (*prepared.words, *shared, *latent_notes(start_latent or {}), *left)
        return host_text.output({"samples": torch.cat(samples).to("cpu")}, text="\n".join(words))
