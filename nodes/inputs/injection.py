"""The inputs that the Injected LoRA Sampler and the Injected LoRA Guider share."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.injection.settings import InjectionSettings
from ...diffstyler_core.styles.regions import OUTSIDES
from .. import sockets
from ..host.lora.files import NO_LORA, lora_names
from ..host.sampling.branch_run import BETWEENS, Between
from .preset import Chosen, preset_input, settings_of
from .widgets import mask_edge_inputs, strength_input


def run_inputs() -> list[io.Input]:
    """Model, features and prompts; the injection's windows; guidance; the one LoRA of a simple graph."""
    return [
        io.Model.Input("model", tooltip="The base model; style LoRAs are applied inside this node."),
        io.MultiType.Input(
            "features",
            types=[sockets.Features, sockets.Trajectory],
            tooltip="From Capture Features/Attention. Or a TRAJECTORY alone, from CycleDiffusion Invert or DDIM "
            "Invert: then nothing is injected, and preset has no effect.",
        ),
        io.Conditioning.Input(
            "positive",
            tooltip="Prompt with the style's token, as in training. With styles wired: the prompt of what lies "
            "outside of them, used by 'regenerate'.",
        ),
        io.Conditioning.Input("negative", tooltip="The paper's authors: ugly, blurry, black, low res, unrealistic."),
        preset_input(),
        io.Float.Input(
            "cfg",
            default=10.5,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Guidance scale. The authors use 10.5; 1 switches guidance off and halves the work.",
        ),
        io.Combo.Input(
            "lora_name",
            options=[NO_LORA, *lora_names()],
            default=NO_LORA,
            tooltip="A file of models/loras, instead of lora.",
        ),
        strength_input("lora_strength", "Strength of lora or lora_name. Styles have their own."),
        io.MultiType.Input(
            "lora",
            types=[sockets.LoraModel, sockets.LoraSchedule],
            optional=True,
            tooltip="From Train Style LoRA, Load LoRA Model, or LoRA Switch Schedule: one style for the whole picture.",
        ),
    ]


def region_inputs() -> list[io.Input]:
    """Styles for regions and what happens outside of them, and an injection as a value."""
    return [
        sockets.Styles.Input(
            "styles", optional=True, tooltip="From Regional Style: a LoRA, prompt and mask per region. Instead of lora."
        ),
        sockets.Injection.Input(
            "injection",
            optional=True,
            tooltip="From Injection Settings, instead of preset. A Regional Style with its own uses those.",
        ),
        outside_input(optional=True),
        *mask_edge_inputs(optional=True),
    ]


def outside_input(optional: bool) -> io.Combo.Input:
    """What becomes of the picture outside of the styles' masks."""
    return io.Combo.Input(
        "outside",
        options=list(OUTSIDES),
        default="content",
        optional=optional,
        tooltip="Outside the styles' masks. content: the picture as it was, from the trajectory at every step. "
        "regenerate: the base model's own prediction with the positive prompt, nothing injected (eq. 8); for an "
        "injected one wire a Regional Style without a LoRA for the rest.",
    )


def between_input() -> io.Combo.Input:
    """What is injected at noise levels that the trajectory has not."""
    return io.Combo.Input(
        "between",
        options=list(BETWEENS),
        default=BETWEENS[0],
        tooltip="Samplers visit other noise levels than the capture's. interpolated: the two captured levels beside "
        "it, blended; a capture to be recomputed is evaluated at that very level. nearest: the nearest captured level.",
        advanced=True,
    )


def between_words(between: Between, steps: int) -> str:
    """What happens between the captured levels, in words. Raises ValueError for another choice."""
    if between not in BETWEENS:
        raise ValueError(f"between must be one of {BETWEENS}, got {between!r:.100}.")
    return f"for any sampler: its noise levels, {between} among the {steps} of the trajectory"


def injected(preset: Chosen, injection: InjectionSettings | None) -> tuple[InjectionSettings, str, bool]:
    """(what is injected, as wired or as the preset says; which of the two, in words; wired?). Raises ValueError."""
    return (*settings_of(preset), False) if injection is None else (injection, "injection, as wired", True)
