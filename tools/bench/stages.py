"""Each stage of the method beside the host's own sampler with as many rows and steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tools.bench import hooks
from tools.bench.measure import Compared, row_of
from tools.bench.node_calls import NOTHING, NodeCalls, stripes

LORA, LORAS = "KSampler with Load LoRA", "KSampler with LoRA hooks"


def compared(calls: NodeCalls) -> Iterator[Compared]:
    """Every comparison, one after the other."""
    subject, steps = calls.subject, calls.steps
    loras = [calls.random_lora(seed) for seed in range(1, 5)]
    trajectory = calls.invert()
    noise = {"samples": subject.model.model.process_latent_out(trajectory.noise)}
    stored = calls.capture(trajectory)
    patched = calls.with_lora(loras[0])
    one_row = partial(calls.ksampler, noise, cfg=1.0)
    plain, with_lora = partial(calls.ksampler, noise), partial(calls.ksampler, noise, patched)

    yield Compared("invert", "KSampler, cfg 1", calls.invert, one_row, steps)
    for storage in ("memory", "disk"):
        yield Compared(
            f"capture, {storage}", "KSampler, cfg 1", partial(calls.capture, trajectory, storage), one_row, steps
        )
    nothing = partial(calls.sample, stored, None, NOTHING, strength=0.0)
    yield Compared("sample, nothing injected", "KSampler", nothing, plain, steps)
    yield Compared("sample, LoRA alone", LORA, partial(calls.sample, stored, loras[0], NOTHING), with_lora, steps)
    for storage, bar in (("memory", 1.08), ("disk", None), ("recompute", 1.55)):
        features = stored if storage == "memory" else calls.capture(trajectory, storage)
        sample = partial(calls.sample, features, loras[0])
        yield Compared(f"sample, injected, {storage}", LORA, sample, with_lora, steps, bar)
    injected = partial(calls.ksampler, noise, calls.applied(patched, stored))
    yield Compared("KSampler with Apply Injection and Load LoRA", LORA, injected, with_lora, steps)
    for count in (2, 4):
        some = loras[:count]
        prompts = hooks.masked(subject, some, stripes(subject.side, count))
        yield Compared(
            f"{count} styles in masks, injected", f"{LORAS} and masks",
            partial(calls.sample, stored, styles=calls.styles(some)), partial(calls.ksampler, noise, prompts=prompts),
            steps,
        )  # fmt: skip
    prompts = hooks.keyframed(subject, loras[:2])
    switched = partial(calls.sample, stored, calls.switch(loras[:2]))
    yield Compared(
        "switch of two styles, injected", f"{LORAS} and keyframes", switched,
        partial(calls.ksampler, noise, prompts=prompts), steps,
    )  # fmt: skip
    one = partial(calls.sample, stored, loras[0])
    yield Compared("switch of two styles, injected", "one style, injected", switched, one, steps)


def rows(calls: NodeCalls, repeats: int) -> Iterator[dict[str, Any]]:
    """The rows of results.json, as they come."""
    for one in compared(calls):
        yield {"model": calls.subject.name, **row_of(one, calls.subject.model, repeats)}


def sizes(calls: NodeCalls) -> dict[str, Any]:
    """What is kept, in MB a step: of a trajectory, and of a capture in memory."""
    trajectory = calls.invert()
    return {
        "model": calls.subject.name,
        "trajectory_mb": round(trajectory.megabytes / (calls.steps + 1), 4),
        "capture_mb": round(calls.capture(trajectory).store.nbytes / 1e6 / calls.steps, 3),
    }
