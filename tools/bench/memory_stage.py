"""One stage of the method at SD1.5's size in a process of its own: prints its peak memory and times as JSON.

Started by memory_table.py. What a stage takes from earlier ones is made up of random numbers, so that their peaks are
not its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tools.bench.memory import PeakMemory, give_back
from tools.bench.models import shaped_subject
from tools.bench.node_calls import NodeCalls
from tools.bench.training import PlainTrainer
from tools.pack_loader import load_pack, prepare_host

SAMPLED = ("memory", "disk", "recompute")
STAGES = (
    "KSampler", "invert", "capture, memory", "capture, disk", *(f"sample, {kind}" for kind in SAMPLED), "train",
    "plain diffusers and peft loop",
)  # fmt: skip


class InsideUNet:
    """Seconds within the UNet's evaluations, by hooks on it."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.seconds = self._since = 0.0
        unet.register_forward_pre_hook(self._begin)
        unet.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._since = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._since


def work_of(stage: str, calls: NodeCalls) -> Callable[[], Any]:
    """The stage, with all that it takes made before."""
    subject, host = calls.subject, calls.pack.host.model
    schedule = host.schedule_of(subject.model, calls.steps)
    latents = tuple(torch.randn_like(subject.encoded) for _ in range(calls.steps + 1))
    trajectory = calls.pack.core.diffusion.trajectory.Trajectory(latents, schedule, host.family_of(subject.model))
    kind, _, storage = stage.partition(", ")
    if kind == "KSampler":
        return partial(calls.ksampler, subject.latent())
    if kind == "invert":
        return partial(calls.invert, subject.latent())
    if kind == "capture":
        return partial(calls.capture, trajectory, storage)
    if kind == "sample":
        return partial(calls.sample, calls.capture(trajectory, storage), calls.random_lora(1))
    if kind == "train":
        return partial(calls.train, calls.steps)
    return partial(PlainTrainer.of(calls).train, calls.steps)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    cpu = not torch.cuda.is_available()
    host = prepare_host(os.environ["COMFYUI_PATH"], cpu)
    if options.threads:
        torch.set_num_threads(options.threads)
    with torch.inference_mode():
        calls = NodeCalls(host, load_pack(host), shaped_subject(options.width, options.side), options.steps)
        work = work_of(options.stage, calls)
        inside = InsideUNet(calls.subject.model.model.diffusion_model)
        give_back()
        began = time.perf_counter()
        with PeakMemory() as peak:
            work()
        total = time.perf_counter() - began
    found = {
        "stage": options.stage,
        "peak_gb": round(peak.most / 1e9, 3),
        "before_gb": round(peak.before / 1e9, 3),
        "seconds_a_step": round(total / options.steps, 3),
        "inside_unet": round(inside.seconds / total, 4) if inside.seconds else None,  # trainings have their own UNet
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
