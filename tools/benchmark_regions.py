"""Several LoRAs in one picture: the pack's one batch against the host's own LoRA hooks (rows of ``dev.py bench``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

Work = Callable[[], Any]
Compared = tuple[str, Work, str, Work]


def region_rows(bench: Any, steps: int) -> Iterator[Compared]:
    """(name, the pack's work, name of the peer, the peer's work) of every comparison."""
    loras = [bench.random_lora(seed) for seed in (1, 2)]
    half = torch.zeros(1, *bench.picture.shape[1:3])
    half[..., : half.shape[-1] // 2] = 1.0
    masks = (half, 1.0 - half)
    peer = "KSampler + LoRA hooks"
    yield "two styles in two masks", _regions(bench, loras, masks), f"{peer} and masks", _hooked(bench, loras, masks)
    yield "two styles by steps", _switched(bench, loras), f"{peer} and keyframes", _keyframed(bench, loras)
    yield "two styles by steps", _switched(bench, loras), "one style, injected", bench.sample(bench.stored)


def _regions(bench: Any, loras: list[Any], masks: tuple[Any, ...]) -> Work:
    node, styles = bench.pack.pipeline.style.StyleNode, ()
    for lora, mask in zip(loras, masks, strict=True):
        styles = node.execute(bench.positive, 1.0, lora, mask, styles).args[0]
    return bench.sample(bench.stored, lora=None, styles=styles)


def _switched(bench: Any, loras: list[Any]) -> Work:
    core = bench.pack.core.lora.schedule
    windows = ((0.0, 0.5), (0.5, 1.0))
    entries = tuple(core.LoraEntry(lora, 1.0, a, b) for lora, (a, b) in zip(loras, windows, strict=True))
    return bench.sample(bench.stored, lora=core.LoraSchedule(entries))


def _hooked(bench: Any, loras: list[Any], masks: tuple[Any, ...]) -> Work:
    """The host's way: each prompt with its LoRA as a weight hook and its mask."""
    import comfy.hooks as hooks

    pairs = [
        hooks.set_conds_props(
            conds=[bench.positive, bench.negative], strength=1.0, set_cond_area="default", mask=mask,
            hooks=hooks.create_hook_lora(lora, 1.0, 0.0),
        )
        for lora, mask in zip(loras, masks, strict=True)
    ]  # fmt: skip
    first, second = pairs
    return bench.ksampler(bench.model, first[0] + second[0], first[1] + second[1])


def _keyframed(bench: Any, loras: list[Any]) -> Work:
    """The host's way: both LoRAs as weight hooks whose strengths change over at half of the run."""
    import comfy.hooks as hooks

    both = hooks.HookGroup()
    for lora, strengths in zip(loras, ((1.0, 0.0), (0.0, 1.0)), strict=True):
        frames = hooks.HookKeyframeGroup()
        for start, strength in zip((0.0, 0.5), strengths, strict=True):
            frames.add(hooks.HookKeyframe(strength=strength, start_percent=start))
        group = hooks.create_hook_lora(lora, 1.0, 0.0)
        group.set_keyframes_on_hooks(frames)
        both = both.clone_and_combine(group)
    pair = hooks.set_conds_props(
        conds=[bench.positive, bench.negative], strength=1.0, set_cond_area="default", hooks=both
    )
    return bench.ksampler(bench.model, *pair)
