"""Reconstruction Report: how far sampling strays from the inversion's path, plain and refined (method.md section 2)."""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion.schedule import NoiseSchedule, spacing_note
from ...diffstyler_core.diffusion.trajectory import psnr
from ...diffstyler_core.evaluation.analysis import csv_text, distance
from ..drawing.canvas import colour_of
from ..drawing.plot import Line, Plot, draw_plot, log_heights
from ..drawing.schedule_chart import tick_step
from ..host import text as host_text
from ..host.inputs import Conditioning, latent_notes, one_latent, require_conditioning
from ..host.model import require_compatible, schedule_of
from ..host.sampling.inversion import invert_latent, reconstruct_latent
from ..inputs.features import ANALYSIS

HEADER = ("step", "timestep", "distance_plain", "distance_refined")


class Report(NamedTuple):
    """An inversion that was sampled back.

    distances: at each level 0 (noise) .. S (picture), ||sampled - inverted|| / ||inverted||.
    psnr: of the picture that came back, in latent space, dB.
    """

    name: str
    refinements: int
    distances: tuple[float, ...]
    psnr: float


def reconstruct(
    model: ModelPatcher, latent: Tensor, source: Conditioning, schedule: NoiseSchedule, refinements: int
) -> Report:
    """Inverts and samples back. Costs S (1 + refinements) + S UNet evaluations."""
    trajectory, x_T = invert_latent(model, latent, source, schedule, refinements)
    distances: list[float] = []

    def measure(level: int, z: Tensor) -> Tensor:
        distances.append(distance(z, trajectory.latents[level]))
        return z

    back = reconstruct_latent(model, x_T, source, schedule, measure)
    name = f"{refinements} refinements" if refinements > 1 else "1 refinement" if refinements else "plain"
    return Report(name, refinements, tuple(distances), psnr(latent, back.to(latent)))


def evaluations(reports: list[Report]) -> int:
    """UNet evaluations that the reports cost together."""
    return sum((len(report.distances) - 1) * (2 + report.refinements) for report in reports)


def table(reports: list[Report], schedule: NoiseSchedule) -> str:
    """CSV: a row for each level; the last is the picture, at timestep 0."""
    timesteps = (*schedule.timesteps, 0)
    rows = zip(range(schedule.steps + 1), timesteps, *(report.distances for report in reports), strict=True)
    return csv_text(HEADER, rows)


def describe(reports: list[Report]) -> str:
    """What came back, how far from the path, at what cost."""
    lines = [
        f"{r.name}: {r.psnr:.1f} dB PSNR in latent space, off by {100 * r.distances[-1]:.3g} % at the end"
        for r in reports
    ]
    parts = " + ".join(f"{(len(r.distances) - 1) * (2 + r.refinements)}" for r in reports)
    return "\n".join([*lines, f"{evaluations(reports)} UNet evaluations ({parts})"])


def draw_reports(reports: list[Report]) -> Tensor:
    """IMAGE [1, H, W, 3]: distances over the steps on a logarithmic axis. Level 0, where both start, is left out."""
    steps = len(reports[0].distances) - 1
    lines = tuple(
        Line(r.name, tuple(enumerate(r.distances))[1:], colour_of(i), f"PSNR {r.psnr:.1f} dB")
        for i, r in enumerate(reports)
    )
    apart = tick_step(steps)
    marks = [*range(0, steps - apart // 2, apart), steps]
    heights = log_heights([d for r in reports for d in r.distances[1:]])
    words = tuple((float(mark), str(mark)) for mark in marks)
    across = f"sampling step (0: noise, {steps}: picture)"
    return draw_plot(Plot(lines, words, across, "distance from the inversion's path, relative", heights, log=True))


class ReconstructionReport(io.ComfyNode):
    """Plain against refined DDIM inversion of one content."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ReconstructionReport",
            display_name="Reconstruction Report",
            category=ANALYSIS,
            description="Inverts a content plainly and with refinement, samples both back, and shows how far each "
            "strays from the path that it was inverted along. Tells which refinement DDIM Invert needs.",
            search_aliases=["inversion", "inversion error", "ddim reconstruction", "psnr", "diffstyler"],
            inputs=[
                io.Model.Input("model", tooltip="The base model, without the style LoRA."),
                io.Latent.Input("latent", tooltip="The content picture, encoded with this checkpoint's VAE."),
                io.Conditioning.Input("source", tooltip="Prompt that describes the content; usually the empty prompt."),
                io.Int.Input("steps", default=50, min=1, max=999, tooltip="S, as on DDIM Invert."),
                io.Int.Input(
                    "refinement",
                    default=5,
                    min=1,
                    max=20,
                    tooltip="Fixed-point iterations per step of the refined inversion. The plain one has none. "
                    "Together they cost S x (4 + refinement) UNet evaluations.",
                ),
            ],
            outputs=[
                io.Image.Output("plot", tooltip="Distance over the steps, plain and refined, on a logarithmic axis."),
                io.String.Output("csv", tooltip=f"A table: {', '.join(HEADER)}."),
                io.String.Output("text", tooltip="PSNR of both reconstructions, and the number of UNet evaluations."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, latent: dict[str, Any], source: Conditioning, steps: int, refinement: int
    ) -> io.NodeOutput:
        require_compatible(model)
        schedule = schedule_of(model, steps)
        samples = one_latent(latent, model, "latent")
        require_conditioning(source, model, "source", one=True)
        if refinement < 1:
            raise ValueError(
                f"refinement must be 1 or more, got {refinement}: the plain inversion (0) is always shown beside it."
            )
        reports = [reconstruct(model, samples, source, schedule, refinements) for refinements in (0, refinement)]
        comfy.model_management.throw_exception_if_processing_interrupted()
        text = "\n".join([describe(reports), *filter(None, [spacing_note(schedule)]), *latent_notes(latent)])
        plot = draw_reports(reports)
        return host_text.output(plot, table(reports, schedule), text, text=text, node=cls, picture=plot)
