"""Frame Consistency: how much a stylised clip flickers, measured along the motion of its content."""

from __future__ import annotations

from itertools import pairwise

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.evaluation.consistency import HEADER, Steadiness, describe, step_of, table
from ...diffstyler_core.metrics.flow import LEAST
from .. import sockets
from ..drawing.palette import colour_of
from ..drawing.plot import Line, Plot, draw_plot
from ..host import text as host_text
from ..host.checks.pictures import place_of, unit_pictures
from ..host.progress import ProgressBar, stop_if_cancelled


def clips_of(frames: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    """Both clips [B, H, W, 3] in 0..1, of one size and count. Raises ValueError for others, for one frame, tiny ones.

    Of a content that VAE Encode crops only what the frames show is taken.
    """
    ours, theirs = unit_pictures(frames, "frames"), unit_pictures(content, "content")
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(
            f"frames and content: two clips of as many frames, at least two, are expected, got {len(ours)} and "
            f"{len(theirs)}. Wire the frames that were stylised as content, and cut with 'Image From Batch'."
        )
    rows, columns = place_of(ours, theirs, "frames")
    if min(ours.shape[1:3]) < LEAST:
        raise ValueError(
            f"frames: motion is followed from {LEAST} pixels on each side on, got {ours.shape[2]} x {ours.shape[1]}. "
            "Work at a larger size."
        )
    return ours, theirs[:, rows, columns]


def steadiness_plot(steady: Steadiness) -> Plot:
    """The differences over the steps, the content's own below."""
    mean = steady.mean()
    ours = tuple((float(n), step.result.absolute) for n, step in steady.found.items())
    own = tuple((float(n), step.content.absolute) for n, step in steady.found.items())
    lines = (
        Line("frames", ours, colour_of(0), f"mean {mean.result.absolute:.4f}"),
        Line("content itself", own, colour_of(1), f"mean {mean.content.absolute:.4f}"),
    )
    return Plot(lines, "frame (each against the next)", "warped-frame difference")


class FrameConsistency(io.ComfyNode):
    """Warped-frame difference of a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_FrameConsistency",
            display_name="Frame Consistency",
            category=sockets.EVALUATE,
            description="Measures how much a clip flickers: each frame against the next one, which is warped onto it "
            "by the content clip's optical flow, where both show the same. The content's own figure is the floor.",
            search_aliases=[
                "flicker",
                "temporal consistency",
                "warping error",
                "warped frame difference",
                "optical flow",
                "video metrics",
                "evaluate video",
                "diffstyler",
            ],
            inputs=[
                io.Image.Input("frames", tooltip="The clip to judge, as a batch of frames in their order."),
                io.Image.Input("content", tooltip="The clip it was made of, frame by frame; its motion is followed."),
            ],
            outputs=[
                io.Image.Output("plot", tooltip="The difference at every frame, and the content's own."),
                io.String.Output("text", tooltip="The figures in words."),
                io.String.Output("csv", tooltip=f"A table: {', '.join(HEADER)}."),
                io.Float.Output("difference", tooltip="Warped-frame difference, 0..1; lower is steadier."),
                io.Float.Output(
                    "content_difference", tooltip="The content's own, of moving detail and noise: the floor."
                ),
            ],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def execute(cls, frames: Tensor, content: Tensor) -> io.NodeOutput:
        ours, theirs = clips_of(frames, content)
        progress, steps = ProgressBar(len(ours) - 1), []
        for result, own in zip(pairwise(ours), pairwise(theirs), strict=True):
            stop_if_cancelled()
            steps.append(step_of(result, own))
            progress.update(1)
        steady = Steadiness(steps)
        mean, text = steady.mean(), describe(steady)
        plot = draw_plot(steadiness_plot(steady))
        values = (mean.result.absolute, mean.content.absolute)
        return host_text.output(plot, text, table(steady), *values, text=text, picture=plot)
