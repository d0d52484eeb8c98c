"""Regional Style: one region's LoRA, prompt and mask; chained node by node (method.md section 5)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.settings import InjectionSettings
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from ...diffstyler_core.styles.style import Style, Styles, add_style
from ...diffstyler_core.styles.words import describe
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.checks.numbers import require_number
from ..host.checks.text import one_line, require_text
from ..host.lora.run import STRONGEST
from ..inputs.widgets import strength_input


class StyleNode(io.ComfyNode):
    """One style for one region; wire several into each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_RegionalStyle",
            display_name="Regional Style",
            category=sockets.CATEGORY,
            description="A style LoRA with its prompt, for the masked part of the picture. Chain several for several "
            "regions; one of them may go without a mask and takes the rest. Without a LoRA it is a region of the base "
            "model. It may have a capture and injection settings of its own.",
            search_aliases=[
                "style",
                "style region",
                "regional lora",
                "regional prompt",
                "regional prompting",
                "attention couple",
                "masked style",
                "mask style",
                "lora mask",
                "multi style",
                "two styles",
                "area composition",
                "diffstyler",
            ],
            inputs=[
                io.Conditioning.Input("positive", tooltip="Prompt with the style's token, as in its training."),
                strength_input("strength", "Strength of the LoRA. It multiplies the strengths of a schedule."),
                io.MultiType.Input(
                    "lora",
                    types=[sockets.LoraModel, sockets.LoraSchedule],
                    optional=True,
                    tooltip="From Train Style LoRA, Load LoRA Model, or LoRA Switch Schedule. Without: the base model.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the style goes; soft edges are kept. Any resolution. Without: the rest of the "
                    "picture. Where masks overlap, styles mix. For a clip one for all frames, or one for each.",
                ),
                sockets.Styles.Input("previous", optional=True, tooltip="The styles of the other regions."),
                sockets.Features.Input(
                    "features",
                    optional=True,
                    tooltip="A capture of its own, e.g. with its LoRA in the captured run. Without: the sampler's.",
                ),
                sockets.Injection.Input(
                    "injection",
                    optional=True,
                    tooltip="From Injection Settings: windows of its own. Without: the sampler's.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip="What Preview Styles, the sampler's words and errors call it. Empty: style 1, style 2, ...",
                ),
            ],
            outputs=[
                sockets.Styles.Output("styles", tooltip="For the Injected LoRA Sampler, or the next Regional Style.")
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        strength: float,
        lora: Lora | LoraSchedule | None = None,
        mask: Tensor | None = None,
        previous: Styles = (),
        features: Capture | None = None,
        injection: InjectionSettings | None = None,
        name: str = "",
    ) -> io.NodeOutput:
        called = one_line(require_text(name, f"name of style {len(previous) + 1}"))
        style = Style(lora, positive, strength, mask, features, injection, called)
        require_number(strength, f"strength of {style.label(len(previous) + 1)}", -STRONGEST, STRONGEST)
        styles = add_style(previous, style)
        return host_text.output(styles, text=describe(styles))
