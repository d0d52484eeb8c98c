"""AdaIN Latent: a start latent with another one's mean and contrast (StyleID's initial latent AdaIN)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.injection.adain import adain_latent
from ...diffstyler_core.masks.mask import one_mask, resize_by_area
from .. import sockets
from ..host import text as host_text
from ..host.checks.latents import plain_latent
from ..host.checks.numbers import require_number


class AdaINLatent(io.ComfyNode):
    """The content's latent with the style's mean and spread per channel."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_AdaINLatent",
            display_name="AdaIN Latent",
            category=sockets.CATEGORY,
            description="Gives a latent the mean and contrast per channel of another: of two inversions' x_T, the "
            "style picture's tones on the content's noise, to start any sampler from. The Injected LoRA Sampler does "
            "it by itself for a Training-free Style.",
            search_aliases=[
                "adain",
                "adaptive instance normalization",
                "initial latent adain",
                "styleid",
                "color transfer latent",
                "match latent statistics",
                "latent mean std",
                "color match",
                "diffstyler",
            ],
            inputs=[
                io.Latent.Input("content", tooltip="The latent to change, usually the content's x_T of DDIM Invert."),
                io.Latent.Input(
                    "style", tooltip="Whose mean and contrast it takes, usually the style's x_T. Any size."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="How much of the change: 0 leaves the content's latent, 1 is all of it.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where it is changed; soft edges are kept. Means and contrasts are of the whole latents in "
                    "any case. Without: everywhere.",
                ),
            ],
            outputs=[
                io.Latent.Output("latent", tooltip="For start_latent of the sampler, or latent_image of any other.")
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls, content: dict[str, Any], style: dict[str, Any], strength: float, mask: Tensor | None = None
    ) -> io.NodeOutput:
        samples, like = plain_latent(content, "content"), plain_latent(style, "style")
        if like.shape[1] != samples.shape[1]:
            raise ValueError(
                f"style: a latent of {samples.shape[1]} channels is expected, as content has, got {like.shape[1]}. "
                "Encode both pictures with one checkpoint's VAE."
            )
        require_number(strength, "strength", 0.0, 1.0)
        share: float | Tensor = strength
        if mask is not None:
            share = strength * resize_by_area(one_mask(mask, "mask"), *samples.shape[-2:])
        changed = adain_latent(samples, like, share)
        return host_text.output({**content, "samples": changed}, text=moved(samples, changed))


def moved(before: Tensor, after: Tensor) -> str:
    """Mean and contrast of the channels, before and after, in words."""
    rows = []
    for name, latent in (("before", before), ("after", after)):
        means, spreads = latent.float().mean((0, 2, 3)).tolist(), latent.float().std((0, 2, 3)).tolist()
        rows.append(f"{name}: " + ", ".join(f"{m:.3g} +- {s:.3g}" for m, s in zip(means, spreads, strict=True)))
    return "mean and contrast of each channel\n" + "\n".join(rows)
