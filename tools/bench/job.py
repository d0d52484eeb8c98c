"""The whole job beside the plain script: train a LoRA, invert a content, sample it in the style."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from tools.bench.measure import Spent, Work, ratios, spent
from tools.bench.node_calls import FIXED, NodeCalls
from tools.bench.plain_method import PlainMethod, merged, whole_picture
from tools.bench.training import PlainTrainer

TRAINING, STEPS = 200, 50
PLAIN = "plain diffusers and peft script"


class Shares(NamedTuple):
    """part: 1 for the whole job; n for an n-th of all its steps, of the 999 timesteps too."""

    part: int

    @property
    def training(self) -> int:
        return TRAINING // self.part

    @property
    def sampling(self) -> int:
        return STEPS // self.part


class Run(NamedTuple):
    """What each took, ours and theirs. rests, alike: all but the training, and how near the results are, by way."""

    trainings: tuple[Spent, Spent]
    rests: dict[int, tuple[Spent, Spent]]
    alike: dict[int, dict[str, float]]


class Jobs:
    """Both ways to do the job on one subject. The LoRA's own UNet is the content's source too, as in the original."""

    def __init__(self, calls: NodeCalls, shares: Shares, folder: Path) -> None:
        self.calls, self.shares = calls, shares
        self.trainer = PlainTrainer.of(calls)
        self.plain = plain_method(calls, folder)

    def our_result(self, lora: Any) -> Any:
        """The pack's nodes, all but the training. -> LATENT"""
        features = self.calls.capture(self.calls.invert(), lora=lora)
        return self.calls.sample(features, lora, FIXED)

    def their_result(self, unet: Any, every: int = 0) -> Tensor:
        """The plain script, all but the training. unet: with the LoRA.

        every: 0 inverts with the sampling's steps alone, n with each n-th of the 999 timesteps, up and down.
        """
        self.plain.invert(self.trainer.unet, content_of(self.calls), every)
        return self.plain.sample([self.trainer.unet, unet], whole_picture(1))

    def run(self, ways: Sequence[int]) -> Run:
        """One job of ours, and one of the plain script for each way to invert; one training of it serves them all.

        Both go on with the LoRA that ours has trained, so that their results may be compared.
        """
        kept: dict[str, Any] = {}

        def timed(name: str, work: Work) -> Spent:
            return spent(lambda: kept.update({name: work()}))

        trainings = timed("lora", partial(self.calls.train, self.shares.training)), timed("", self.train_plainly)
        unet = self.with_lora(kept["lora"])
        ours = timed("ours", partial(self.our_result, kept["lora"]))
        theirs = {every: timed(f"{every}", partial(self.their_result, unet, every)) for every in ways}
        alike = {every: likeness(self.calls, kept["ours"]["samples"], kept[f"{every}"]) for every in ways}
        return Run(trainings, {every: (ours, their) for every, their in theirs.items()}, alike)

    def warm_up(self) -> None:
        """A step of each training, and both results once: what is imported and planned at first is not measured."""
        self.calls.train(1)
        self.trainer.train(1)
        lora = self.calls.random_lora(1)
        self.our_result(lora)
        self.their_result(self.with_lora(lora))

    def train_plainly(self) -> None:
        """The plain script's training."""
        self.trainer.train(self.shares.training)

    def with_lora(self, lora: Any) -> Any:
        """The plain script's UNet with a LoRA that the pack has trained."""
        unet = copy.deepcopy(self.trainer.unet)
        merged(unet, lora)
        return unet


def plain_method(calls: NodeCalls, folder: Path) -> PlainMethod:
    """The plain script with the subject's prompts."""
    subject = calls.subject
    velocity = calls.pack.host.model.prediction_of(subject.model) == "v"
    empty, negative, positive = (cond[0][0] for cond in (subject.empty, subject.negative, subject.positive))
    return PlainMethod(folder, velocity, empty, negative, positive, subject.cfg, calls.steps)


def content_of(calls: NodeCalls) -> Tensor:
    """The content's latent in the UNet's own scale."""
    z: Tensor = calls.subject.model.model.process_latent_in(calls.subject.encoded)
    return z


def rows(calls: NodeCalls, part: int, repeats: int) -> Iterator[dict[str, Any]]:
    """The rows of results.json: with as many inversion steps as the pack's, and with all timesteps up and down."""
    shares = Shares(part)
    with tempfile.TemporaryDirectory(prefix="diffstyler-bench-") as folder:
        jobs = Jobs(calls, shares, Path(folder))
        jobs.warm_up()
        runs = [jobs.run((0, part)) for _ in range(repeats)]
    for every, bar in ((0, 3 / 4), (part, 1 / 6)):
        rests = [run.rests[every] for run in runs]
        whole = [
            (sum_of(ours, a), sum_of(theirs, b))
            for (ours, theirs), (a, b) in zip((run.trainings for run in runs), rests, strict=True)
        ]
        steps = 2 * len(range(1, 1000, every)) if every else shares.sampling
        yield {
            "model": calls.subject.name,
            "name": f"train {shares.training}, invert {shares.sampling}, sample {shares.sampling}",
            "peer": f"{PLAIN}, {steps} inversion evaluations",
            "bar": bar,
            **ratios(whole),
            "without_training": ratios(rests),
            **runs[0].alike[every],
        }


def sum_of(a: Spent, b: Spent) -> Spent:
    """Both, one after the other."""
    return Spent(a.wall + b.wall, a.cpu + b.cpu)


def likeness(calls: NodeCalls, ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """How near the two results are with the same LoRA: relative distance of the latents, PSNR of the pictures."""
    subject = calls.subject
    mine: Tensor = subject.model.model.process_latent_in(ours)
    pictures = [subject.vae.decode(subject.model.model.process_latent_out(z)) for z in (mine, theirs)]
    error = (pictures[0] - pictures[1]).square().mean().item()
    return {
        "latents_apart": float(f"{((mine - theirs).norm() / theirs.norm()).item():.3g}"),
        "psnr": round(-10 * math.log10(max(error, 1e-12)), 1),
    }
