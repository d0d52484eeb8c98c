"""Reconstruction Report: how far sampling strays from the inversion's path, plain and refined (method.md section 2)."""

from __future__ import annotations

from typing import Any, NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion.schedule import NoiseSchedule, spacing_note
from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.evaluation.csv_table import csv_text
from ...diffstyler_core.evaluation.similarity import relative_distance
from ...diffstyler_core.metrics.pixels import latent_psnr
from .. import sockets
from ..drawing.palette import colour_of
from ..drawing.plot import Line, Plot, draw_plot
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.latents import latent_notes, one_latent
from ..host.model import require_compatible, schedule_of
from ..host.progress import stop_if_cancelled
from ..host.sampling.inversion import invert_latent, reconstruct_latent
from ..host.types import ModelPatcher

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


class PathDistances:
    """Sees every latent that is sampled, and measures how far it is from the trajectory at its level."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory, self.measured = trajectory, list[float]()

    def __call__(self, level: int, z: Tensor) -> Tensor:
        self.measured.append(relative_distance(z, self.trajectory.latents[level]))
        return z


def reconstruct(
    model: ModelPatcher, latent: Tensor, source: Conditioning, schedule: NoiseSchedule, refinements: int
) -> Report:
    """Inverts and samples back. Costs S (1 + refinements) + S UNet evaluations."""
    trajectory, x_T = invert_latent(model, latent, source, schedule, refinements)
    distances = PathDistances(trajectory)
    back = reconstruct_latent(model, x_T, source, schedule, distances)
    name = f"{refinements} refinements" if refinements > 1 else "1 refinement" if refinements else "plain"
    return Report(name, refinements, tuple(distances.measured), latent_psnr(latent, back.to(latent)))


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


def distance_plot(reports: list[Report]) -> Plot:
    """Distances over the steps on a logarithmic axis. Level 0, where both start, is left out."""
    steps = len(reports[0].distances) - 1
    lines = tuple(
        Line(r.name, tuple(enumerate(r.distances))[1:], colour_of(i), f"PSNR {r.psnr:.1f} dB")
        for i, r in enumerate(reports)
    )
    across = f"sampling step (0: noise, {steps}: picture)"
    return Plot(lines, across, "distance from the inversion's path, relative", log=True)


class ReconstructionReport(io.ComfyNode):
    """Plain against refined DDIM inversion of one content."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_ReconstructionReport",
            display_name="Reconstruction Report",
            category=sockets.EVALUATE,
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
        stop_if_cancelled()
        text = "\n".join([describe(reports), *filter(None, [spacing_note(schedule)]), *latent_notes(latent)])
        plot = draw_plot(distance_plot(reports))
        return host_text.output(plot, table(reports, schedule), text, text=text, picture=plot)
