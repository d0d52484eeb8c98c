"""The training's log and curves, kept beside the checkpoint: training.csv and training.png, from the stages' output."""

import csv
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)
AUTOENCODER = re.compile(r"(pair|decoder) (\d+)\s+\d+%\s+psnr ([\d.]+)\s*(?:held out ([\d. ]+))?$")
UNET = re.compile(r"unet (\d+)\s+\d+ s\s+\d+%\s+loss ([\d.]+)$")
HELD_OUT = re.compile(r"(?:unet \w+: )?held out:? ([\d.]+)$")
HEADER = ("run", "part", "step", "training", "held_out")


class Point(NamedTuple):
    """part: pair and decoder of the autoencoder in dB, unet in mean squared error. held_out: a mean, or None."""

    run: str
    part: str
    step: int
    training: float | None
    held_out: float | None


def read(run: str, lines: Iterable[str]) -> list[Point]:
    """The points that the lines of a stage's output name."""
    points: list[Point] = []
    step = 0
    for line in lines:
        if found := AUTOENCODER.search(line.rstrip()):
            part, step_text, training, held = found.groups()
            figures = [float(value) for value in (held or "").split()]
            points.append(
                Point(run, part, int(step_text), float(training), sum(figures) / len(figures) if figures else None)
            )
        elif found := UNET.search(line.rstrip()):
            step = int(found[1])
            points.append(Point(run, "unet", step, float(found[2]), None))
        elif step and (found := HELD_OUT.search(line.rstrip())):
            points.append(Point(run, "unet", step, None, float(found[1])))
    return points


def write(folder: Path, logs: Sequence[Path]) -> None:
    """training.csv and training.png of logs named RUN.log, in the order given."""
    points = [point for path in logs for point in read(path.stem, path.read_text(encoding="utf-8").splitlines())]
    if not points:
        raise ValueError(
            f"no training figures in {', '.join(map(str, logs)) or 'no logs'}; give --logs the stages' output"
        )
    with (folder / "training.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(["" if value is None else value for value in point] for point in points)
    draw(points, folder / "training.png")
    log.info("%d points of %d runs", len(points), len(logs))


def draw(points: Sequence[Point], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    charts = zip(figure.subplots(1, 2), (("pair", "decoder"), ("unet",)), strict=True)
    for axes, parts in charts:
        for run in dict.fromkeys(point.run for point in points if point.part in parts):
            for part in parts:
                chosen = [point for point in points if (point.run, point.part) == (run, part)]
                trained = [(p.step, p.training) for p in chosen if p.training is not None]
                held = [(p.step, p.held_out) for p in chosen if p.held_out is not None]
                name = run if len(parts) == 1 else f"{run}: {part}"
                (line,) = axes.plot(*zip(*trained, strict=True), lw=1, label=name) if trained else (None,)
                if held:
                    axes.plot(*zip(*held, strict=True), "o", ms=3, color=line.get_color() if line else None)
        axes.set_xlabel("step")
        axes.legend(fontsize=7)
    left, right = figure.axes
    left.set_ylabel("PSNR, dB (dots: held-out photographs)")
    right.set_ylabel("mean squared error (dots: held out)")
    figure.savefig(path, dpi=100)
