"""The host's own ways to several LoRAs in one picture: weight hooks on its prompts, with masks and with keyframes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tools.bench.models import Subject

Prompts = tuple[Any, Any]


def masked(subject: Subject, loras: Sequence[Any], masks: Sequence[Tensor]) -> Prompts:
    """(positive, negative): each prompt with its LoRA as a weight hook, and its mask."""
    import comfy.hooks as hooks

    pairs = [
        hooks.set_conds_props(
            conds=[subject.positive, subject.negative], strength=1.0, set_cond_area="default", mask=mask,
            hooks=hooks.create_hook_lora(lora, 1.0, 0.0),
        )
        for lora, mask in zip(loras, masks, strict=True)
    ]  # fmt: skip
    return [one for pair in pairs for one in pair[0]], [one for pair in pairs for one in pair[1]]


def keyframed(subject: Subject, loras: Sequence[Any]) -> Prompts:
    """(positive, negative) with all LoRAs as weight hooks, of which one after the other has a strength."""
    import comfy.hooks as hooks

    group, share = hooks.HookGroup(), 1.0 / len(loras)
    for own, lora in enumerate(loras):
        frames = hooks.HookKeyframeGroup()
        for i in range(len(loras)):
            frames.add(hooks.HookKeyframe(strength=float(i == own), start_percent=i * share))
        hook = hooks.create_hook_lora(lora, 1.0, 0.0)
        hook.set_keyframes_on_hooks(frames)
        group = group.clone_and_combine(hook)
    positive, negative = hooks.set_conds_props(
        conds=[subject.positive, subject.negative], strength=1.0, set_cond_area="default", hooks=group
    )
    return positive, negative
