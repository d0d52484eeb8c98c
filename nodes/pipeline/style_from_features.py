"""Training-free Style: a picture's own attention as a style, by StyleID or shared attention. No LoRA is trained."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.injection.capture import Capture
from ...diffstyler_core.injection.reference import HOTTEST, SHARINGS, Method, Reference, SharedAttention, StyleID
from ...diffstyler_core.injection.settings import NOTHING, InjectionSettings
from ...diffstyler_core.lora.schedule import Lora, LoraSchedule
from ...diffstyler_core.styles.style import Style, Styles, add_style
from ...diffstyler_core.styles.words import describe
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.checks.numbers import require_number
from ..host.checks.text import one_line, require_text
from ..host.lora.run import STRONGEST
from ..inputs.layers import AUTO, layers_of, readable_layers
from ..inputs.widgets import share_input, strength_input


def method_input() -> io.DynamicCombo.Input:
    """StyleID or shared attention, each with its own settings."""
    return io.DynamicCombo.Input(
        "method",
        options=[
            io.DynamicCombo.Option("StyleID", style_id_inputs()),
            io.DynamicCombo.Option("shared attention", shared_inputs()),
        ],
        tooltip="StyleID: the content's queries look at the style's k and v; keeps the content. shared attention: the "
        "run's own attention looks at the style, instead of or beside itself; the content is held by injection.",
    )


def style_id_inputs() -> list[io.Input]:
    """The paper's values to begin with."""
    return [
        io.Float.Input(
            "query_blend",
            default=StyleID.query_blend,
            min=0.0,
            max=1.0,
            step=0.05,
            round=0.001,
            tooltip="gamma: how much of the query is the content's own. More keeps more of the content.",
        ),
        io.Float.Input(
            "temperature",
            default=StyleID.temperature,
            min=0.1,
            max=HOTTEST,
            step=0.1,
            round=0.001,
            tooltip="tau: sharpens the attention. 1 leaves it soft, which blurs; the paper uses 1.5.",
        ),
        io.Boolean.Input(
            "adain_start",
            default=True,
            tooltip="The start latent takes the style's mean and contrast per channel, so the result its colours. The "
            "sampler does it where no start_latent is wired; for the guider use AdaIN Latent.",
        ),
    ]


def shared_inputs() -> list[io.Input]:
    """StyleAligned to begin with."""
    return [
        io.Combo.Input(
            "mode",
            options=list(SHARINGS),
            default="extend",
            tooltip="extend: own and style tokens in one softmax (StyleAligned). swap: the style's k and v instead of "
            "the own (Visual Style Prompting); stronger.",
        ),
        io.Boolean.Input(
            "normalise",
            default=True,
            tooltip="Queries and keys first take the mean and spread of the style's (StyleAligned). Visual Style "
            "Prompting: off.",
        ),
    ]


def method_of(chosen: dict[str, Any] | None) -> Method:
    """The method that a choice stands for. Raises ValueError for another, and for values out of bounds."""
    name = None if chosen is None else chosen.get("method")
    if chosen is not None and name == "StyleID":
        return StyleID(chosen["query_blend"], chosen["temperature"], chosen["adain_start"])
    if chosen is not None and name == "shared attention":
        return SharedAttention(chosen["mode"], chosen["normalise"])
    raise ValueError(f"method must be one of StyleID, shared attention, got {name!r:.100}.")


class StyleFromFeatures(io.ComfyNode):
    """One training-free style for the picture or a region; wire several into each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_StyleFromFeatures",
            display_name="Training-free Style",
            category=sockets.CATEGORY,
            description="A style straight from a picture, without training: the run's self-attention looks at what the "
            "style picture's own run held. Takes its capture with values switched on; a style of the chain like any "
            "other, so it goes into regions and beside LoRAs.",
            search_aliases=[
                "styleid",
                "style injection",
                "style aligned",
                "stylealigned",
                "visual style prompting",
                "vsp",
                "shared attention",
                "cross-image attention",
                "attention sharing",
                "reference only",
                "reference style",
                "training free",
                "no training",
                "zero shot style",
                "adain",
                "ip adapter",
                "instantstyle",
                "diffstyler",
            ],
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="Prompt of the result. StyleID's own setting: the empty one."
                ),
                sockets.Features.Input(
                    "style_features",
                    tooltip="Capture Features/Attention of the style picture's trajectory, with values on. As many "
                    "steps as the content's; the picture may have another size.",
                ),
                method_input(),
                io.String.Input(
                    "layers",
                    default=AUTO,
                    tooltip="Decoder layers whose self-attention looks at the style. auto: all that were captured of "
                    "the style's picture and, for StyleID's queries, of the content; 6-11 with SD1/SD2 at 512, as "
                    "StyleID has them. Or a list like 6-11, or 'all'. Earlier layers take more of the style's shapes.",
                ),
                share_input(
                    "start_percent", 0.0, "From which share of the run on the style's attention is used.", rare=True
                ),
                share_input("end_percent", 1.0, "Up to which share of the run it is used.", rare=True),
                strength_input("strength", "Strength of lora. Without a LoRA it does nothing.", rare=True),
                io.MultiType.Input(
                    "lora",
                    types=[sockets.LoraModel, sockets.LoraSchedule],
                    optional=True,
                    tooltip="Acts in this style's prediction as well. Without: the base model, as the papers have it.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the style goes; soft edges are kept. Any resolution. Without: the rest of the "
                    "picture.",
                ),
                sockets.Styles.Input("previous", optional=True, tooltip="The styles of the other regions."),
                sockets.Injection.Input(
                    "injection",
                    optional=True,
                    tooltip="From Injection Settings: what of the content is injected beside it. Without: nothing with "
                    "StyleID, whose queries keep the content; the sampler's with shared attention.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip="What Preview Styles, the sampler's words and errors call it. Empty: style 1, style 2, ...",
                ),
            ],
            outputs=[
                sockets.Styles.Output("styles", tooltip="For the Injected LoRA Sampler, or the next style's previous.")
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = "", method: object = None) -> bool | str:
        """Lists that cannot be read are refused before anything is run. The host hands ``method`` over unasked."""
        return readable_layers(layers=layers)

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        style_features: Capture,
        method: dict[str, Any] | None,
        layers: str = AUTO,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        strength: float = 1.0,
        lora: Lora | LoraSchedule | None = None,
        mask: Tensor | None = None,
        previous: Styles = (),
        injection: InjectionSettings | None = None,
        name: str = "",
    ) -> io.NodeOutput:
        called = one_line(require_text(name, f"name of style {len(previous) + 1}"))
        how = method_of(method)
        auto = layers.strip() == AUTO
        named = None if auto else layers_of(layers, "layers")
        reference = Reference(style_features, how, named, start_percent, end_percent, auto)
        if injection is None and isinstance(how, StyleID):
            injection = NOTHING
        style = Style(lora, positive, strength, mask, None, injection, called, reference)
        require_number(strength, f"strength of {style.label(len(previous) + 1)}", -STRONGEST, STRONGEST)
        styles = add_style(previous, style)
        return host_text.output(styles, text=describe(styles))
