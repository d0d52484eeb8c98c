"""Share Attention across Frames: the frames of a batch look at each other in self-attention."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.injection.shared_frames import LOOKINGS, Looking
from ...diffstyler_core.injection.sites import format_layers
from .. import sockets
from ..host import text as host_text
from ..host.model import layout_of
from ..host.sampling.shared_frames import with_shared_frames
from ..host.types import ModelPatcher
from ..inputs.layers import ALL, layers_of, readable_layers


class ShareFrames(io.ComfyNode):
    """A MODEL in whose runs the frames of a batch share their self-attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ShareFrames",
            display_name="Share Attention across Frames",
            category=sockets.CATEGORY,
            description="Lets the frames of a batch look at each other in self-attention, so that a stylised clip "
            "shares its look. For any sampler, with injection, styles and LoRAs on top. A batch of one stays as it is.",
            search_aliases=[
                "video",
                "flicker",
                "deflicker",
                "temporal consistency",
                "cross frame attention",
                "tune a video",
                "text2video zero",
                "frames",
                "batch",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that samples; its own attention patches are kept."),
                io.Combo.Input(
                    "look_at",
                    options=list(LOOKINGS),
                    default=LOOKINGS[0],
                    tooltip="Which frames each looks at beside itself. first: twice the keys. first and previous: "
                    "three times. all: as many times as there are frames, the most memory and time.",
                ),
                io.String.Input(
                    "layers",
                    default=ALL,
                    tooltip="Decoder self-attention layers that share, e.g. 6-11. all: every one.",
                    advanced=True,
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="For any sampler. The one wired in is not changed.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        """A list that cannot be read is refused before anything runs; None comes over a wire."""
        if layers is not None and layers.strip() == "auto":
            return "layers: 'auto' is not taken here. Write 'all', or a list like '6-11'."
        return readable_layers(layers=layers)

    @classmethod
    def execute(cls, model: ModelPatcher, look_at: Looking, layers: str) -> io.NodeOutput:
        if look_at not in LOOKINGS:
            raise ValueError(f"look_at must be one of {', '.join(LOOKINGS)}, got {look_at!r:.100}.")
        layout, wanted = layout_of(model), layers_of(layers, "layers")
        chosen = layout.layers("self-attention") if wanted is None else wanted
        if not chosen:
            raise ValueError("layers: none are named, so nothing would be shared. Write 'all', or e.g. '6-11'.")
        patched = with_shared_frames(model, layout.sites("self-attention", chosen), look_at)
        return host_text.output(patched, text=f"each frame also looks at: {look_at}; layers {format_layers(chosen)}")
