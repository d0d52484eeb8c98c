"""LoRA Switch Schedule: several LoRAs that take turns over the sampling steps (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

from comfy_api.latest import io

from ...diffstyler_core.lora.schedule import Lora, LoraEntry, LoraSchedule
from .. import sockets
from ..drawing.schedule_chart import draw_schedule
from ..host import text as host_text
from ..host.inputs import require_number, require_text

NOTHING = LoraSchedule(())
STRONGEST, LAST_STEP = 4.0, 999


def describe(schedule: LoraSchedule) -> str:
    """One line: who acts from which step to which (end exclusive), and where the base model does."""
    turns = [(entry.start_at_step, str(entry)) for entry in schedule.entries]
    turns += [(start, f"base model at steps {start}..{end}") for start, end in schedule.gaps()]
    return ", ".join(words for _, words in sorted(turns)) + f"; for runs of {schedule.end} steps or more"


def ramp_input(name: str, end: str, change: str) -> io.Int.Input:
    """The widget of ramp_in and ramp_out."""
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=LAST_STEP,
        advanced=True,
        tooltip=f"The strength {change} over this many of its {end} steps, to soften the switch; 0: at once.",
    )


class LoraSwitch(io.ComfyNode):
    """One LoRA's turn; wire several into each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_LoraSwitch",
            display_name="LoRA Switch Schedule",
            category=sockets.CATEGORY,
            description="Gives a style LoRA its turn among the sampling steps. Chain several: early steps set the "
            "global look, late ones local detail. Steps without a LoRA use the base model.",
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
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-STRONGEST,
                    max=STRONGEST,
                    step=0.05,
                    round=0.001,
                    tooltip="Strength of this LoRA during its turn.",
                ),
                io.Int.Input(
                    "start_at_step",
                    default=0,
                    min=0,
                    max=LAST_STEP - 1,
                    tooltip="Its first step; 0 is the noisiest. As in KSampler (Advanced).",
                ),
                io.Int.Input(
                    "end_at_step",
                    default=30,
                    min=1,
                    max=LAST_STEP,
                    tooltip="The first step that is not its own any more: the next LoRA can start here. At most the "
                    "run's number of steps.",
                ),
                ramp_input("ramp_in", "first", "rises"),
                ramp_input("ramp_out", "last", "falls"),
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
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its chart and words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        lora: Lora,
        strength: float,
        start_at_step: int,
        end_at_step: int,
        ramp_in: int,
        ramp_out: int,
        name: str,
        previous: LoraSchedule = NOTHING,
    ) -> io.NodeOutput:
        name = require_text(name, "name").strip() or f"LoRA {len(previous.entries) + 1}"
        require_number(end_at_step, "end_at_step", 1, LAST_STEP)
        entry = LoraEntry(lora, strength, start_at_step, end_at_step, name, ramp_in, ramp_out)
        schedule = LoraSchedule((*previous.entries, entry))
        require_number(strength, "strength", -STRONGEST, STRONGEST)
        return host_text.output(schedule, text=describe(schedule), node=cls, picture=draw_schedule(schedule))
