"""LoRA Switch Schedule: several LoRAs that take turns over the sampling steps (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.lora.schedule import Lora, LoraEntry, LoraSchedule, span
from .. import sockets
from ..drawing.schedule_chart import draw_schedule
from ..host import text as host_text
from ..host.checks.numbers import require_number
from ..host.checks.refusal import refusal
from ..host.checks.text import require_text
from ..host.lora.run import STRONGEST
from ..inputs.widgets import share_input, strength_input

NOTHING = LoraSchedule(())


def describe(schedule: LoraSchedule) -> str:
    """One line: who acts from which share of the run to which, and where the base model does."""
    turns = [(entry.start, str(entry)) for entry in schedule.entries]
    turns += [(start, f"base model {span(start, end)}") for start, end in schedule.gaps()]
    return ", ".join(words for _, words in sorted(turns)) + " of the run"


def entry_of(
    lora: Lora, strength: float, start: float, end: float, ramp_in: float, ramp_out: float, name: str
) -> LoraEntry:
    """One turn. Raises ValueError for numbers that make no window."""
    require_number(strength, "strength", -STRONGEST, STRONGEST)
    entry = LoraEntry(lora, strength, start, end, name, ramp_in, ramp_out)
    entry.check()
    return entry


class LoraSwitch(io.ComfyNode):
    """One LoRA's turn; wire several into each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_LoraSwitch",
            display_name="LoRA Switch Schedule",
            category=sockets.CATEGORY,
            description="Gives a style LoRA its turn in the sampling run. Chain several: the early part sets the "
            "global look, the late one local detail. Where no LoRA has its turn, the base model acts.",
            search_aliases=[
                "lora schedule",
                "lora switch",
                "lora timing",
                "lora keyframes",
                "lora per step",
                "style schedule",
                "multi style",
                "two styles",
                "blend loras",
                "diffstyler",
            ],
            inputs=[
                sockets.LoraModel.Input("lora", tooltip="From Train Style LoRA or Load LoRA Model."),
                strength_input("strength", "Strength of this LoRA during its turn."),
                share_input("start_percent", 0.0, "Where its turn begins, as a share of the run; 0 is pure noise."),
                share_input(
                    "end_percent",
                    0.6,
                    "Where its turn ends: the next LoRA can start here. 1 is the end of the run.",
                ),
                share_input(
                    "ramp_in_percent",
                    0.0,
                    "The strength rises over this share of the run at the turn's beginning, to soften the switch; 0: "
                    "at once.",
                    rare=True,
                ),
                share_input(
                    "ramp_out_percent",
                    0.0,
                    "The strength falls over this share of the run at the turn's end; 0: at once.",
                    rare=True,
                ),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="What the chart and errors call this LoRA. Empty: LoRA 1, LoRA 2, ...",
                ),
                sockets.LoraSchedule.Input("previous", optional=True, tooltip="The turns of the other LoRAs."),
            ],
            outputs=[
                sockets.LoraSchedule.Output(
                    "schedule",
                    tooltip="For Regional Style, the Injected LoRA Sampler, or the next LoRA Switch Schedule.",
                )
            ],
            has_intermediate_output=True,  # its chart and words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, start_percent: float | None = 0.0, end_percent: float | None = 1.0) -> bool | str:
        """A turn that ends before it starts is refused before anything is run. None stands for a wire."""
        if start_percent is None or end_percent is None:
            return True
        return refusal(LoraEntry({}, 1.0, start_percent, end_percent, "this LoRA").check)

    @classmethod
    def execute(
        cls,
        lora: Lora,
        strength: float,
        start_percent: float,
        end_percent: float,
        ramp_in_percent: float,
        ramp_out_percent: float,
        name: str,
        previous: LoraSchedule = NOTHING,
    ) -> io.NodeOutput:
        name = require_text(name, "name").strip() or f"LoRA {len(previous.entries) + 1}"
        entry = entry_of(lora, strength, start_percent, end_percent, ramp_in_percent, ramp_out_percent, name)
        schedule = LoraSchedule((*previous.entries, entry))
        return host_text.output(schedule, text=describe(schedule), picture=draw_schedule(schedule))
