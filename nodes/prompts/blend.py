"""Blend Conditionings by Mask: several prompts in one picture, in the cross-attention of any sampler."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.styles.style import Styles
from .. import sockets
from ..host import text as host_text
from ..host.checks.numbers import require_number
from ..host.cross_attention import blend
from ..host.cross_attention.machine import with_reader
from ..host.sampling.injection import FARTHEST
from ..host.types import ModelPatcher
from ..inputs.widgets import mask_edge_inputs


class BlendConditionings(io.ComfyNode):
    """A MODEL whose cross-attention reads each style's prompt where the style's mask is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_BlendConditionings",
            display_name=blend.NAME,
            category=sockets.PROMPTS,
            description="Several prompts in one picture with soft transitions, for any sampler: each cross-attention "
            "is the masks' mean of one attention per prompt. Takes the same chain of Regional Styles as the Injected "
            "LoRA Sampler, whose noise merging does it in the prediction; styles here are prompt and mask only. Where "
            "no mask is, the sampler's own prompt acts. Of a prompt its tokens act, not its pooled output (SDXL).",
            search_aliases=[
                "attention couple",
                "regional prompt",
                "regional prompting",
                "area composition",
                "two prompts",
                "two styles",
                "dual style",
                "cross attention",
                "latent couple",
                "style transition",
                "conditioning mask",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the sampler gets. Invert and capture with the one from before."
                ),
                sockets.Styles.Input(
                    "styles",
                    tooltip="Regional Styles without a LoRA: a prompt and a mask each. Where masks sum to more than 1 "
                    "they are scaled down; a style without a mask takes the rest.",
                ),
                *mask_edge_inputs(),
            ],
            outputs=[
                io.Model.Output(
                    "model",
                    tooltip="For any sampler. Its own positive prompt acts where no mask is; the negative stays.",
                )
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(cls, model: ModelPatcher, styles: Styles, mask_grow: int, mask_feather: int) -> io.NodeOutput:
        require_number(mask_grow, "mask_grow", -FARTHEST, FARTHEST)
        require_number(mask_feather, "mask_feather", 0, FARTHEST)
        blend.require_prompts(styles, model)
        patched = with_reader(model, blend.blended(model, styles, mask_grow, mask_feather))
        words = [*blend.describe(styles, mask_grow, mask_feather), *blend.pooled_note(model)]
        return host_text.output(patched, text="\n".join(words))
