"""Style: one region's LoRA, prompt and mask; chained node by node (method.md section 5)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..diffstyler_core.lora_schedule import Lora, LoraSchedule
from ..diffstyler_core.style import Style, Styles, add_style
from . import host_text, sockets
from .host_inputs import Conditioning


def describe(styles: Styles) -> str:
    """One line per style of the chain."""
    lines = []
    for number, style in enumerate(styles, 1):
        where = "the rest of the picture" if style.mask is None else f"mask, {100 * style.mask.mean().item():.1f} %"
        turns = f", {len(style.lora.entries)} LoRAs in turn" if isinstance(style.lora, LoraSchedule) else ""
        empty = " (empty: no effect)" if style.mask is not None and not style.mask.any() else ""
        lines.append(f"style {number}: {where}{empty}{turns}")
    return "\n".join(lines)


class StyleNode(io.ComfyNode):
    """One style for one region; wire several into each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_Style",
            display_name="Style",
            category=sockets.CATEGORY,
            description="A style LoRA with its prompt, for the masked part of the picture. Chain several for several "
            "regions; one of them may go without a mask and takes the rest.",
            search_aliases=["regional lora", "masked style", "style region", "diffstyler"],
            inputs=[
                io.MultiType.Input(
                    "lora",
                    types=[sockets.LoraModel, sockets.LoraSchedule],
                    tooltip="From Train Style LoRA, Load LoRA Model, or LoRA Switch Schedule.",
                ),
                io.Conditioning.Input("positive", tooltip="Prompt with the style's token, as in its training."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Strength of the LoRA. It multiplies the strengths of a schedule.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the style goes; soft edges are kept. Any resolution. Without: the rest of the "
                    "picture. Where masks overlap, styles mix.",
                ),
                sockets.Styles.Input("previous", optional=True, tooltip="The styles of the other regions."),
            ],
            outputs=[sockets.Styles.Output("styles", tooltip="For the Injected LoRA Sampler, or the next Style.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        lora: Lora | LoraSchedule,
        positive: Conditioning,
        strength: float,
        mask: Tensor | None = None,
        previous: Styles = (),
    ) -> io.NodeOutput:
        styles = add_style(previous, Style(lora, positive, strength, mask))
        return host_text.output(styles, text=describe(styles), node=cls)
