"""Attaching taps and LoRAs to the UNet for one evaluation, through the host's DIFFUSION_MODEL wrapper.

Everything is attached inside the call and detached in ``finally``; nothing stays on the MODEL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ..diffstyler_core.sites import Kind, Site
from ..diffstyler_core.taps import Tap
from .host_lora import ForwardLora, loras_applied

KEY = "diffstyler"
BRANCHES = "diffstyler_branches"
PATCH_NAMES: dict[Kind, str] = {"self-attention": "attn1", "cross-attention": "attn2"}

Options = dict[str, Any]


def options_for(model_options: Options, tap: Tap | None, loras: Sequence[ForwardLora | None] = ()) -> Options:
    """Model options of one evaluation: a copy of the received ones with this tap and the LoRA of each branch.

    Which branch a chunk of the batch belongs to stands in the transformer options under BRANCHES; without that entry
    (one branch) all rows belong to the first.
    """
    if not any(loras) and (tap is None or not tap.sites):
        return model_options
    options = comfy.model_patcher.create_model_options_clone(model_options)
    add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, _wrapper(tap, loras), options, is_model_options=True)
    return options


def _wrapper(tap: Tap | None, loras: Sequence[ForwardLora | None]) -> Callable[..., Tensor]:
    def forward(
        executor: Any,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> Tensor:
        unet, options = executor.class_obj, transformer_options or {}
        chunks = [loras[branch] for branch in options.get(BRANCHES, [0])] if loras else []
        with loras_applied(unet, chunks), _features_tapped(unet, tap):
            return executor(x, timesteps, context, y, control, _attention_tapped(options, tap), **kwargs)

    return forward


@contextmanager
def _features_tapped(unet: UNetModel, tap: Tap | None) -> Iterator[None]:
    """Hooks on the ResBlocks' ``out_layers``: the hidden state before the skip connection is added."""
    if tap is None:
        yield
        return
    handles = []
    try:
        for site in tap.sites:
            if site.kind == "feature":
                module = unet.output_blocks[site.layer][0].out_layers
                handles.append(module.register_forward_hook(_feature_hook(tap, site)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _feature_hook(tap: Tap, site: Site) -> Callable[..., Tensor]:
    return lambda module, args, output: tap.feature(site, output)


def _attention_tapped(transformer_options: Options, tap: Tap | None) -> Options:
    """A copy of the options whose attention replacements lead through the tap to whatever stood there before."""
    sites = [s for s in tap.sites if s.kind != "feature"] if tap else []
    if tap is None or not sites:
        return transformer_options
    options = {**transformer_options, "patches_replace": dict(transformer_options.get("patches_replace", {}))}
    for site in sites:
        patches = options["patches_replace"].setdefault(PATCH_NAMES[site.kind], {})
        patches = options["patches_replace"][PATCH_NAMES[site.kind]] = dict(patches)
        block = ("output", site.layer)
        deep = (*block, site.depth)
        patches[deep] = _attention_patch(tap, site, patches.get(deep, patches.get(block)))
    return options


def _attention_patch(tap: Tap, site: Site, previous: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
    def patch(q: Tensor, k: Tensor, v: Tensor, extra_options: Options) -> Tensor:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if previous is not None:  # another pack owns this block: it gets the changed q and k
                return previous(q, k, v, extra_options)
            heads, precision = extra_options["n_heads"], extra_options["attn_precision"]
            return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)

        return tap.attention(site, q, k, v, attend)

    return patch
