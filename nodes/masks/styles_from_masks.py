"""Styles from Masks: a style for each of many masks, as FastSAM finds objects, in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.settings import InjectionSettings
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from ...diffstyler_core.styles.objects import ASSIGNS, Assign, assigned, split_masks, styles_of
from ...diffstyler_core.styles.style import Style, Styles, add_style
from ...diffstyler_core.styles.words import describe
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.checks.numbers import require_number
from ..host.checks.text import one_line, require_text
from ..host.lora.run import STRONGEST
from ..inputs.widgets import strength_input

ONE_OR_EACH = "One for all styles, or a list with one for each (Create List)."


def only(values: list[Any], name: str) -> Any:
    """The one value of an input that has no list. Raises ValueError for several."""
    if len(values) != 1:
        raise ValueError(f"{name}: one is expected, got a list of {len(values)}. Wire the one you mean.")
    return values[0]


def chained(previous: Styles, styles: list[Style]) -> Styles:
    """The chain with all of these. Raises ValueError, which names the style, for a mask or number that is none."""
    for style in styles:
        label = style.label(len(previous) + 1)
        require_number(style.strength, f"strength of {label}", -STRONGEST, STRONGEST)
        previous = add_style(previous, style)
    return previous


def unused(styles: int, masks: int) -> str:
    """What to say when there are fewer masks than styles; else nothing."""
    return f"note: {styles - masks} of {styles} styles have no mask and are not used" if masks < styles else ""


class StylesFromMasks(io.ComfyNode):
    """The chain of styles that one Regional Style for each mask would make."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_StylesFromMasks",
            display_name="Styles from Masks",
            category=sockets.CATEGORY,
            description="Gives every mask of a list a style of its own: the objects that FastSAM found, a batch of "
            "masks. With several LoRAs or prompts the masks take them in turn.",
            search_aliases=[
                "style per object",
                "style each object",
                "regional style",
                "regional prompting",
                "mask list",
                "mask batch",
                "multi style",
                "diffstyler",
            ],
            inputs=[
                io.Mask.Input(
                    "masks", tooltip="A list of masks or a batch, e.g. FastSAM's masks with combine separate."
                ),
                io.Conditioning.Input("positive", tooltip=f"Prompt with the style's token. {ONE_OR_EACH}"),
                strength_input("strength", f"Strength of the LoRA. {ONE_OR_EACH}"),
                io.Combo.Input(
                    "assign",
                    options=list(ASSIGNS),
                    default="in turn",
                    tooltip="in turn: masks take the styles 1, 2, 1, 2, ... however many there are. one each: as many "
                    "masks as styles are expected, anything else is an error.",
                ),
                io.MultiType.Input(
                    "lora",
                    types=[sockets.LoraModel, sockets.LoraSchedule],
                    optional=True,
                    tooltip=f"From Train Style LoRA, Load LoRA Model, or LoRA Switch Schedule. {ONE_OR_EACH} Without: "
                    "the base model.",
                ),
                sockets.Styles.Input("previous", optional=True, tooltip="The styles of other regions."),
                sockets.Features.Input(
                    "features", optional=True, tooltip=f"A capture of their own. {ONE_OR_EACH} Without: the sampler's."
                ),
                sockets.Injection.Input(
                    "injection", optional=True, tooltip=f"Windows of their own. {ONE_OR_EACH} Without: the sampler's."
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip=f"What Preview Styles, words and errors call them. {ONE_OR_EACH}",
                ),
            ],
            outputs=[sockets.Styles.Output("styles", tooltip="One chain, a style for each mask.")],
            is_input_list=True,
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        masks: list[Tensor],
        positive: list[Conditioning],
        strength: list[float],
        assign: list[Assign],
        lora: list[Lora | LoraSchedule | None] | None = None,
        previous: list[Styles] | None = None,
        features: list[Capture | None] | None = None,
        injection: list[InjectionSettings | None] | None = None,
        name: list[str] | None = None,
    ) -> io.NodeOutput:
        names = [one_line(require_text(each, "name")) for each in name or [""]]
        fields = {
            "lora": [None] if lora is None else lora,
            "positive": positive,
            "strength": strength,
            "features": [None] if features is None else features,
            "injection": [None] if injection is None else injection,
            "name": names,
        }
        given, found = styles_of(fields), split_masks(masks)
        chain = only([()] if previous is None else previous, "previous")
        styles = chained(chain, assigned(found, given, only(assign, "assign")))
        text = "\n".join(filter(None, [describe(styles), unused(len(given), len(found))]))
        return host_text.output(styles, text=text)
