"""`dev.py bench`: measures, and writes results.json, results.md and the plots after every part.

Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).absolute().parents[2]))

import torch

from tools.bench import growth, job, memory_table, report, stages, training
from tools.bench.machine import ROOT, conditions, machine, versions
from tools.bench.models import FULL_WIDTH, Subject, demo_subject, shaped_subject
from tools.bench.node_calls import NodeCalls
from tools.bench.options import MEMORY, PARTS, bench_parser
from tools.devkit.console import Failure, duration, say
from tools.pack_loader import LoadedPack, load_pack, prepare_host


class Scale(NamedTuple):
    """How much is measured. shaped: channels and pixels of the model of SD1.5's shape; its steps are fewer.

    job: (side of the demo checkpoint's pictures, which part of all steps), and for the shaped model the part alone.
    """

    repeats: int
    sides: tuple[int, ...]
    steps: int
    training: int
    job: tuple[int, int]
    shaped: tuple[int, int] | None
    shaped_steps: int
    shaped_part: int


FULL = Scale(3, (128, 256), 8, 12, (128, 1), (128, 256), 2, 25)
QUICK = Scale(1, (64,), 2, 2, (64, 25), None, 2, 25)
GROWTH_SIDE, GROWTH_STEPS = 128, 6


class Bench:
    """What every part needs. Subjects are made once."""

    def __init__(self, host: Any, pack: LoadedPack, scale: Scale, quick: bool) -> None:
        self.host, self.pack, self.scale, self.quick = host, pack, scale, quick
        self.demo: Callable[[int], Subject] = cache(partial(demo_subject, host))
        self.shaped: Callable[[int, int], Subject] = cache(shaped_subject)

    def calls(self, subject: Subject, steps: int) -> NodeCalls:
        return NodeCalls(self.host, self.pack, subject, steps)

    def _each(self) -> Iterator[tuple[NodeCalls, int]]:
        """Every subject's calls, and how often each comparison is repeated; the larger ones have fewer steps."""
        for side in self.scale.sides:
            steps = max(2, self.scale.steps * self.scale.sides[0] // side)
            yield self.calls(self.demo(side), steps), self.scale.repeats
        if self.scale.shaped:
            subject = self.shaped(*self.scale.shaped)
            yield self.calls(subject, self.scale.shaped_steps), max(1, self.scale.repeats - 1)

    def stages(self) -> Iterator[dict[str, Any]]:
        for calls, repeats in self._each():
            yield from stages.rows(calls, repeats)
            yield {"sizes": stages.sizes(calls)}

    def training(self) -> Iterator[dict[str, Any]]:
        for calls, _ in self._each():
            steps = self.scale.training if calls.subject.name.startswith("demo") else max(2, self.scale.training // 3)
            yield from training.rows(calls, steps, self.scale.repeats)

    def job(self) -> Iterator[dict[str, Any]]:
        side, part = self.scale.job
        yield from job.rows(self.calls(self.demo(side), job.STEPS // part), part, 1)
        if self.scale.shaped:
            part = self.scale.shaped_part
            yield from job.rows(self.calls(self.shaped(*self.scale.shaped), job.STEPS // part), part, 1)

    def growth(self) -> Iterator[dict[str, Any]]:
        side, steps = (self.scale.sides[0], 2) if self.quick else (GROWTH_SIDE, GROWTH_STEPS)
        yield from growth.entries(self.calls(self.demo(side), steps), self.demo, self.scale.repeats, self.quick)


def main(arguments: Sequence[str]) -> int:
    options = bench_parser("dev.py bench").parse_args(arguments)
    scale = QUICK if options.quick else FULL
    scale = scale._replace(repeats=options.repeats or scale.repeats)
    folder = (options.output or ROOT / "bench").absolute()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    host = prepare_host(os.environ["COMFYUI_PATH"], cpu=not torch.cuda.is_available())
    if options.threads:
        torch.set_num_threads(options.threads)
    results = report.Results.read(folder)
    results.update({"machine": machine(), "versions": versions()})
    if options.memory:
        width, side, steps = (32, 64, 2) if options.quick else (FULL_WIDTH, 512, 1)
        about = {"width": width, "side": side, "steps": steps, **conditions()}
        measure(results, MEMORY, memory_table.rows(width, side, steps, options.threads), about)
        return 0
    with own_folder(), torch.inference_mode():
        pack = load_pack(host)
        bench = Bench(host, pack, scale, options.quick)
        for part in options.parts or PARTS:
            measure(results, part, getattr(bench, part)(), conditions())
            report.write_plots(results, pack.drawing)
    say(f"{folder / report.PAGE}")
    return 0


def measure(results: report.Results, part: str, rows: Iterator[dict[str, Any]], about: dict[str, Any]) -> None:
    """Runs a part to its end, shows its rows as they come, and writes the files after each."""
    say(f"\n{part}")
    began, seconds = time.monotonic(), 0.0
    found: list[dict[str, Any]] = []
    for row in rows:
        found.append(row)
        say("  " + report.line(row))
        seconds = time.monotonic() - began
        results.update({part: {**about, "seconds": round(seconds, 1), "rows": found}})
        results.write()
    say(f"  {duration(seconds)}")


@contextmanager
def own_folder() -> Iterator[None]:
    """Captures on disk go into a folder of the benchmark's own while this is open."""
    import folder_paths

    was = folder_paths.get_temp_directory()
    with tempfile.TemporaryDirectory(prefix="diffstyler-bench-") as made:
        folder_paths.set_temp_directory(made)
        try:
            yield
        finally:
            folder_paths.set_temp_directory(was)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        sys.stderr.write(f"\n{failure}\n")
        sys.exit(1)
