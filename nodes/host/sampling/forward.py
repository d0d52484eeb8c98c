"""What acts in the UNet during one evaluation, attached through the host's APPLY_MODEL wrapper.

Everything is attached inside the call and detached in ``finally``; nothing stays on the MODEL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP, copy_nested_dicts
from torch import Tensor

from ....diffstyler_core.injection.attention import QKV, Mixture, attend_mixed
from ....diffstyler_core.injection.sites import Kind, Site
from ....diffstyler_core.injection.taps import ByChunk, Giver, Tap
from ..cross_attention.layers import Replacement, replacement_at
from ..lora.adapters import ForwardLora
from ..lora.forwards import Forwards
from ..lora.layers_attached import Forward

KEY = "diffstyler"
PATCH_NAMES: dict[Kind, str] = {"self-attention": "attn1", "cross-attention": "attn2"}

Options = dict[str, Any]


class Acting(NamedTuple):
    """What acts in one chunk of a batch: a LoRA, and a tap that listens or injects."""

    lora: ForwardLora | None = None
    tap: Tap | None = None

    def __bool__(self) -> bool:
        return self.lora is not None or (self.tap is not None and bool(self.tap.sites))


def acting_options(model_options: Options, acting: Acting, forwards: Forwards) -> Options:
    """Model options of an evaluation in all of whose rows ``acting`` acts. The received ones stay as they are.

    forwards: of the run that the evaluation belongs to.
    """
    if not acting:
        return model_options
    options = acting_in(model_options.get("transformer_options", {}), [acting], forwards)
    return {**model_options, "transformer_options": options}


def acting_in(transformer_options: Options, chunks: Sequence[Acting], forwards: Forwards) -> Options:
    """Transformer options of a batch of as many equal chunks, each with what acts in it. A copy, as above.

    The wrapper comes before those on the MODEL: what they do to an attention (Blend Conditionings by Mask) lies around
    the tap, which is given each prompt's own q and k.
    """
    if not any(chunks):
        return transformer_options
    wrappers = copy_nested_dicts(transformer_options.get("wrappers", {}))
    others = wrappers.get(WrappersMP.APPLY_MODEL, {})
    wrappers[WrappersMP.APPLY_MODEL] = {KEY: [_wrapper(chunks, forwards), *others.pop(KEY, ())], **others}
    return {**transformer_options, "wrappers": wrappers}


def _wrapper(chunks: Sequence[Acting], forwards: Forwards) -> Callable[..., Tensor]:
    tap, loras = ByChunk([acting.tap for acting in chunks]), [acting.lora for acting in chunks]

    def apply_model(
        executor: Any,
        x: Tensor,
        sigma: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> Tensor:
        unet = executor.class_obj.diffusion_model
        options = _attention_tapped(transformer_options or {}, tap)
        hooked = getattr(executor.class_obj.current_patcher, "current_hooks", None) is not None
        with forwards.on(unet, loras, _given(unet, tap), fixed=not hooked), _features_tapped(unet, tap):
            return executor(x, sigma, c_concat, c_crossattn, control, options, **kwargs)

    return apply_model


def _given(unet: UNetModel, tap: ByChunk) -> dict[str, list[Forward | None]]:
    """By layer of the UNet, of each chunk what gives its output: the content's, where nothing else is left of it."""
    return {
        layer: _by_giver(tap.givers(site), give)
        for site in sorted(tap.given)
        for layer, give in _layers_given(unet, site).items()
    }


def _layers_given(unet: UNetModel, site: Site) -> dict[str, Callable[[Giver, Tensor], Tensor]]:
    """Which layers a site's tensors stand for, and how a giver makes each of the layer's input."""
    block = f"output_blocks.{site.layer}"
    if site.kind == "feature":
        return {f"{block}.0.out_layers": lambda giver, hidden: giver.feature(site, hidden)}
    modules = unet.output_blocks[site.layer]
    place = next(i for i, module in enumerate(modules) if isinstance(module, SpatialTransformer))
    attention = f"{block}.{place}.transformer_blocks.{site.depth}.{PATCH_NAMES[site.kind]}"
    return {
        f"{attention}.to_q": lambda giver, x: giver.projected(site, 0, x),
        f"{attention}.to_k": lambda giver, x: giver.projected(site, 1, x),
    }


def _by_giver(givers: Sequence[Giver | None], give: Callable[[Giver, Tensor], Tensor]) -> list[Forward | None]:
    """A forward for each chunk, the same for those of one giver."""
    forwards = {id(giver): partial(give, giver) for giver in givers if giver is not None}
    return [forwards.get(id(giver)) for giver in givers]


@contextmanager
def _features_tapped(unet: UNetModel, tap: ByChunk) -> Iterator[None]:
    """Hooks on the ResBlocks' ``out_layers``: the hidden state before the skip connection is added."""
    handles = []
    try:
        for site in tap.tapped:
            if site.kind == "feature":
                module = unet.output_blocks[site.layer][0].out_layers
                handles.append(module.register_forward_hook(_feature_hook(tap, site)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _feature_hook(tap: ByChunk, site: Site) -> Callable[..., Tensor]:
    return lambda module, args, output: tap.feature(site, output)


def _attention_tapped(transformer_options: Options, tap: ByChunk) -> Options:
    """A copy of the options whose attention replacements lead through the tap to whatever stood there before."""
    sites = [s for s in tap.tapped if s.kind != "feature"]
    if not sites:
        return transformer_options
    replaced = {name: dict(of) for name, of in transformer_options.get("patches_replace", {}).items()}
    for site in sites:
        patches = replaced.setdefault(PATCH_NAMES[site.kind], {})
        block = ("output", site.layer)
        deep = (*block, site.depth)
        patches[deep] = _AttentionPatch(tap, site, replacement_at(patches, block, site.depth))
    return {**transformer_options, "patches_replace": replaced}


class _AttentionPatch(NamedTuple):
    """An attention replacement as the host calls it: the tap's q, k and v go to whatever stood there before.

    previous: another pack's replacement of this block, or the host's attention.
    """

    tap: ByChunk
    site: Site
    previous: Replacement

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: Options) -> Tensor:
        mixtures = self.tap.attention(self.site, QKV(q, k, v))
        if len(mixtures) == 1:
            return self._attended(mixtures[0], extra_options)
        out, row = [], 0
        for mixture in mixtures:
            rows = slice(row, row := row + len(mixture.first.q))
            out.append(self._attended(mixture, _of_rows(extra_options, rows, len(q))))
        return torch.cat(out)

    def _attended(self, mixture: Mixture, extra_options: Options) -> Tensor:
        return attend_mixed(mixture, lambda q, k, v: self.previous(q, k, v, extra_options))


def _of_rows(extra_options: Options, rows: slice, count: int) -> Options:
    """The options of an attention over some rows of a batch of ``count``: those of its chunks alone."""
    chunks = extra_options.get("cond_or_uncond", [])
    size = count // max(len(chunks), 1)
    return {**extra_options, "cond_or_uncond": chunks[rows.start // size : rows.stop // size]}
