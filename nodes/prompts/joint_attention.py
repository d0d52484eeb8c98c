"""Joint Text-Image Attention: cross-attention over a prompt's tokens and a picture's (DEADiff, poster fig. 2b)."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.image_prompt.prompt import ImagePrompt
from ...diffstyler_core.injection.cross_layers import numbers, require_layers
from ...diffstyler_core.injection.sites import format_layers
from .. import sockets
from ..host import text as host_text
from ..host.checks.numbers import require_number
from ..host.cross_attention.joint import JointAttention, require_fits
from ..host.cross_attention.layers import cross_layers
from ..host.cross_attention.machine import with_joiner
from ..host.types import ModelPatcher
from ..inputs.layers import ALL, layers_of, readable_layers

STRONGEST = 10.0


class JointTextImageAttention(io.ComfyNode):
    """A MODEL whose cross-attention reads an image prompt beside the text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_JointAttention",
            display_name="Joint Text-Image Attention",
            category=sockets.PROMPTS,
            description="Lets a model read a picture beside its prompt, in one attention over the tokens of both. For "
            "any sampler; the negative prompt reads tokens of zeros. Several can be chained.",
            search_aliases=[
                "deadiff",
                "apply deadiff",
                "image prompt",
                "style reference",
                "apply style model",
                "ip adapter",
                "ipadapter apply",
                "image cross attention",
                "decoupled cross attention",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that the sampler gets: for DEADiff, an SD1.5 checkpoint."),
                sockets.ImagePrompt.Input("image_prompt", tooltip="From DEADiff Encode."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=STRONGEST,
                    step=0.05,
                    tooltip="Multiplies the picture's keys and values. 1 is as trained; less listens less to the "
                    "picture. At 0 its tokens are zeros, which still take their share of the attention.",
                ),
                io.String.Input(
                    "layers",
                    default=ALL,
                    tooltip="Which cross-attention layers read the picture, counted through encoder, middle and "
                    "decoder (0-15 on SD1.5), e.g. 0-3,9-15. The others read the prompt alone. all: every layer.",
                    advanced=True,
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="For any sampler. Bypassing this node gives the plain model.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        """A list that cannot be read is refused before anything runs; None comes over a wire."""
        return readable_layers(layers=layers)

    @classmethod
    def execute(cls, model: ModelPatcher, image_prompt: ImagePrompt, scale: float, layers: str) -> io.NodeOutput:
        require_number(scale, "scale", 0.0, STRONGEST)
        wanted = layers_of(layers, "layers")
        there = cross_layers(model)
        require_fits(image_prompt, there, model)
        chosen = numbers(there) if wanted is None else wanted
        if not chosen:
            raise ValueError("layers: none are named, so nothing would read the picture. Write 'all', or e.g. '0-3'.")
        require_layers(chosen, there, "layers")
        patched = with_joiner(model, JointAttention(image_prompt, scale, chosen))
        return host_text.output(
            patched, text=f"{image_prompt.source}: read in layers {format_layers(chosen)} of {len(there)}"
        )
