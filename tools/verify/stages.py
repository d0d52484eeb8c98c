"""Speed and memory of each stage of the pipeline beside the host's own sampler, in the same run and in turns."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from tools.comfy_client import PromptResult
from tools.comfy_server import ComfyServer
from tools.verify.bench import Bench, findings
from tools.verify.scene import LORA, NOTHING, PAPER, Link, Scene

HOST_ONE, HOST_TWO, HOST_LORA = "KSampler, cfg 1", "KSampler", "KSampler with Load LoRA"


class Stage(NamedTuple):
    """One node's work. peer: the stage that it is held against, step for step.

    build: adds it to a prompt, made anew for another number. -> the node whose seconds count, and what it gives
    """

    name: str
    peer: str
    build: Callable[[Scene, int], Link]
    training: bool = False


class Row(NamedTuple):
    """Medians over the rounds. seconds: of one step. ratio: to a step of the peer, None for the host's own.

    gpu, ram: the most memory held meanwhile, in bytes; gpu None without CUDA.
    """

    name: str
    peer: str
    seconds: float
    ratio: float | None
    gpu: int | None
    ram: int


class Measured(NamedTuple):
    """One run of a stage. seconds: of one of its steps."""

    seconds: float
    gpu: int | None
    ram: int


class PeakRam:
    """The most memory a process held while open, in bytes, looked at every 20 ms."""

    def __init__(self, pid: int) -> None:
        self._process, self._open, self.most = psutil.Process(pid), True, 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while self._open:
            try:
                self.most = max(self.most, self._process.memory_info().rss)
            except psutil.NoSuchProcess:  # it died; whoever waits for its answer learns why
                return
            time.sleep(0.02)

    def __enter__(self) -> PeakRam:
        self.most = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()


def _start(nodes: Scene, number: int) -> Link:
    return nodes.again(["inversion", 1], number)


def _invert(nodes: Scene, number: int) -> Link:
    nodes.add(
        "stage", "DiffStyler_DDIMInvert", model=["checkpoint", 0], source=["empty", 0],
        latent=nodes.again(["inversion latent", 0], number), steps=nodes.settings.steps, spacing="leading",
        refinement=0, reconstruct=False,
    )  # fmt: skip
    return ["stage", 0]


def _capture(nodes: Scene, number: int) -> Link:
    inputs = dict(nodes.api["capture"]["inputs"], storage="memory", trajectory=nodes.again(["inversion", 0], number))
    if nodes.settings.storage != "memory":  # there is no room for all steps: as many as are compared elsewhere
        inputs["trajectory"] = nodes.again(["short", 0], number)
    return [nodes.add("stage", "DiffStyler_Capture", **inputs), 0]


def _sample(windows: dict[str, Any], lora: bool) -> Callable[[Scene, int], Link]:
    def build(nodes: Scene, number: int) -> Link:
        with_lora = {"lora": [LORA, 0]} if lora else {}
        return nodes.ours("stage", nodes.again(["capture", 0], number), windows, **with_lora)

    return build


def _train(nodes: Scene, number: int) -> Link:
    inputs = dict(nodes.api[LORA]["inputs"])
    inputs["style_image"] = nodes.again(inputs["style_image"], number)
    inputs["steps"] = min(inputs["steps"], 20)
    return [nodes.add("stage", "DiffStyler_TrainStyleLoRA", **inputs), 0]


STAGES = (
    Stage(HOST_ONE, "", lambda nodes, number: nodes.host("stage", start=_start(nodes, number), cfg=1.0)),
    Stage(HOST_TWO, "", lambda nodes, number: nodes.host("stage", start=_start(nodes, number))),
    Stage(HOST_LORA, "", lambda nodes, number: nodes.host("stage", nodes.with_lora(), _start(nodes, number))),
    Stage("DDIM Invert", HOST_ONE, _invert),
    Stage("Capture", HOST_ONE, _capture),
    Stage("Injected LoRA Sampler, nothing injected", HOST_TWO, _sample(NOTHING, lora=False)),
    Stage("Injected LoRA Sampler, LoRA and injection", HOST_LORA, _sample(PAPER, lora=True)),
    Stage("Train Style LoRA", HOST_ONE, _train, training=True),
)


def steps_of(stage: Stage, nodes: Scene) -> int:
    """How many steps a stage makes: of sampling, or of training."""
    inputs = nodes.api["stage"]["inputs"]
    if stage.training:
        return int(inputs["steps"])
    shortened = stage.name == "Capture" and nodes.settings.storage != "memory"
    return int(nodes.api["short"]["inputs"]["steps"]) if shortened else nodes.settings.steps


def measured(bench: Bench, stage: Stage, number: int, server: ComfyServer) -> Measured:
    """One run of a stage, anew; the rest of its prompt is there already."""
    server.check_alive()
    nodes = bench.scene()
    link = stage.build(nodes, number)
    nodes.add("peak", "DiffStylerVerify_Peak", value=link)
    with PeakRam(server.pid) as ram:
        result: PromptResult = bench.client.queue(nodes.api)
    seconds = result.node_seconds["stage"] / steps_of(stage, nodes)
    return Measured(seconds, findings(nodes, result)["peak"]["gpu"], ram.most)


def rows_of(runs: Mapping[str, Sequence[Measured]], stages: Sequence[Stage] = STAGES) -> list[Row]:
    """Medians of the rounds' seconds a step, and of the ratios to the peer's of the same round."""
    rows = []
    for stage in (stage for stage in stages if runs.get(stage.name)):
        mine, peers = runs[stage.name], runs.get(stage.peer, ())
        ratios = [a.seconds / b.seconds for a, b in zip(mine, peers, strict=False)]
        gpus = [run.gpu for run in mine if run.gpu is not None]
        rows.append(Row(
            stage.name, stage.peer, statistics.median(run.seconds for run in mine),
            statistics.median(ratios) if ratios else None, max(gpus, default=None), max(run.ram for run in mine),
        ))  # fmt: skip
    return rows
