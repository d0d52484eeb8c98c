"""Layer-split Conditioning: one prompt for the coarse layers, another for the fine ones (DEADiff's poster)."""

from __future__ import annotations

from comfy_api.latest import io

from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.cross_attention import layer_split
from ..host.cross_attention.blend import pooled_note
from ..host.cross_attention.layers import cross_layers
from ..host.cross_attention.machine import with_reader
from ..host.types import ModelPatcher
from ..inputs.coarse import ChosenLayers, coarse_input, coarse_of


class LayerSplitConditioning(io.ComfyNode):
    """A MODEL whose coarse cross-attention layers read one prompt, and whose fine ones read another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_LayerSplitConditioning",
            display_name=layer_split.NAME,
            category=sockets.PROMPTS,
            description="Coarse cross-attention layers, which see few places of the picture, read what is to be seen; "
            "fine ones read how it is to look. For any sampler; its own positive prompt acts in the layers whose "
            "prompt is not wired. Of a prompt its tokens act, not its pooled output (SDXL).",
            search_aliases=[
                "deadiff",
                "layer prompt",
                "prompt per layer",
                "per block conditioning",
                "unet blocks",
                "content and style prompt",
                "disentangled conditioning",
                "block weight",
                "cross attention",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the sampler gets. Invert and capture with the one from before."
                ),
                coarse_input(
                    "layers",
                    "Which layers are coarse, counted through encoder, middle and decoder. as DEADiff: 4-8 of 0-15 on "
                    "SD1 and SD2, 2-6 of 0-10 on SDXL. coarse grids: all that see 1/4 of the latent or less. "
                    "custom: a list of your own.",
                ),
                io.Conditioning.Input(
                    "semantic",
                    optional=True,
                    tooltip="What is to be seen, for the coarse layers. Without: the sampler's.",
                ),
                io.Conditioning.Input(
                    "style", optional=True, tooltip="How it is to look, for the fine layers. Without: the sampler's."
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="For any sampler. The negative prompt acts in all layers.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        layers: ChosenLayers = None,
        semantic: Conditioning | None = None,
        style: Conditioning | None = None,
    ) -> io.NodeOutput:
        known = cross_layers(model)
        coarse = coarse_of(layers, known, "layers")
        layer_split.require_split(model, semantic, style)
        patched = with_reader(model, layer_split.split(semantic, style, coarse))
        words = layer_split.describe(known, coarse, semantic is not None, style is not None)
        return host_text.output(patched, text="\n".join([*words, *pooled_note(model)]))
