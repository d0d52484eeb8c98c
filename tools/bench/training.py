"""A training step beside a plain diffusers and peft loop, and beside the host's own trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tools.bench.measure import Figure, Spent, spent
from tools.bench.memory import PeakMemory
from tools.bench.node_calls import RANK, NodeCalls
from tools.bench.plain_training import PlainTraining
from tools.diffusers_unet import diffusers_twin

PLAIN, HOST = "plain diffusers and peft loop", "the host's Train LoRA"


@dataclass(frozen=True)
class PlainTrainer:
    """The plain loop on the subject's weights, latents and prompt, which are encoded before it begins."""

    calls: NodeCalls
    unet: Any

    @classmethod
    def of(cls, calls: NodeCalls) -> PlainTrainer:
        with torch.inference_mode(False):
            return cls(calls, diffusers_twin(calls.subject.model))

    def train(self, steps: int) -> Any:
        """-> diffusers' UNet with the trained LoRA in it"""
        subject = self.calls.subject
        latent = subject.model.model.process_latent_in(subject.vae.encode(subject.style))
        velocity = self.calls.pack.host.model.prediction_of(subject.model) == "v"
        with torch.inference_mode(False), torch.enable_grad():
            unet, z, prompt = copy.deepcopy(self.unet), latent.clone(), subject.positive[0][0].clone()
            PlainTraining(steps, 2e-4, velocity, RANK).train(unet, lambda: z, lambda: prompt)
        return unet


def host_training(calls: NodeCalls, steps: int) -> Any:
    """TrainLoraNode, which trains every layer."""
    from comfy_extras.nodes_train import TrainLoraNode

    subject = calls.subject
    latent = {"samples": subject.vae.encode(subject.style)}
    return TrainLoraNode.execute(
        [subject.model], [latent], [subject.positive], [1], [steps], [1], [2e-4], [RANK], ["AdamW"], ["MSE"], [0],
        ["fp32"], ["fp32"], [False], ["LoRA"], [False], [1], [False], ["[None]"], [False], [False],
    )  # fmt: skip


Train = Callable[[int], Any]


def rows(calls: NodeCalls, steps: int, repeats: int) -> Iterator[dict[str, Any]]:
    """The rows of results.json: a step without the set-up, and memory that a training takes on top of what was there.

    A step is what one training of 1 + ``steps`` takes more than one of a single step.
    """
    peers: list[tuple[str, Train, float | None]] = [(PLAIN, PlainTrainer.of(calls).train, 0.95)]
    if _trains_here(calls):
        peers.append((HOST, partial(host_training, calls), None))
    for peer, theirs, bar in peers:
        calls.train(1), theirs(1)
        pairs = [(_step(calls.train, steps), _step(theirs, steps)) for _ in range(repeats)]
        yield {
            "model": calls.subject.name,
            "name": "training step",
            "peer": peer,
            "steps": steps,
            "bar": bar,
            "ours_s": Figure.of([a.wall for a, _ in pairs]).median,
            "peer_s": Figure.of([b.wall for _, b in pairs]).median,
            "ratio": Figure.of([a.wall / b.wall for a, b in pairs])._asdict(),
            "cpu_ratio": Figure.of([a.cpu / b.cpu for a, b in pairs])._asdict(),
            "repeats": repeats,
            "ours_mb": _megabytes(calls.train),
            "peer_mb": _megabytes(theirs),
        }


def _trains_here(calls: NodeCalls) -> bool:
    """The host's trainer copies a model by loading its file anew: it wants one that came from a file."""
    return calls.subject.model.cached_patcher_init is not None


def _step(train: Train, steps: int) -> Spent:
    one, more = spent(partial(train, 1)), spent(partial(train, 1 + steps))
    return Spent((more.wall - one.wall) / steps, (more.cpu - one.cpu) / steps)


def _megabytes(train: Train) -> float:
    with PeakMemory() as peak:
        train(2)
    return round(peak.grown / 1e6, 1)
