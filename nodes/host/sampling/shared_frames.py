"""Shared attention across frames on a MODEL: attn1 replacements of the decoder, under what else replaces attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.injection.attention import QKV
from ....diffstyler_core.injection.shared_frames import Looking, shared
from ....diffstyler_core.injection.sites import Site
from ..cross_attention.layers import Options, Replacement, replacement_at


class _Sharing(NamedTuple):
    """An attn1 replacement. previous: what stood there before, or the host's attention."""

    looking: Looking
    previous: Replacement

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: Options) -> Tensor:
        chunks = len(extra_options.get("cond_or_uncond", (0,)))
        return self.previous(*shared(QKV(q, k, v), chunks, self.looking), extra_options)


def sharing_words(model: ModelPatcher, frames: int, at_once: int = 0) -> list[str]:
    """A line on which frames of a batch share their attention, where the MODEL lets them and there are several.

    at_once: frames that are evaluated together; 0: all. Sharing below another pack's replacement is not seen.
    """
    replaced = model.model_options.get("transformer_options", {}).get("patches_replace", {}).get("attn1", {})
    if frames == 1 or not any(isinstance(replacement, _Sharing) for replacement in replaced.values()):
        return []
    size = min(at_once or frames, frames)
    if size == 1:
        return ["frames do not share attention: frames_at_once is 1"]
    if size == frames:
        return [f"all {frames} frames share attention"]
    return [f"frames share attention in groups of {size}, not across them: frames_at_once is {size}"]


def with_shared_frames(model: ModelPatcher, sites: Iterable[Site], looking: Looking) -> ModelPatcher:
    """A copy of the MODEL whose frames look at each other at these self-attentions."""
    patched = model.clone()
    options = model.model_options.get("transformer_options", {})
    former = options.get("patches_replace", {}).get("attn1", {})
    for site in sites:
        replacement = _Sharing(looking, replacement_at(former, ("output", site.layer), site.depth))
        patched.set_model_attn1_replace(replacement, "output", site.layer, site.depth)
    return patched
