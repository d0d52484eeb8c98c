"""One evaluation of a UNet whose cross-attention reads several prompts.

Their tokens are appended to each row's own before the projections, in an attn2 patch, so that the layer's own to_k and
to_v, with every LoRA and patch on them, make their keys and values; an attn2 replacement takes them apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....diffstyler_core.injection.cross_layers import CrossLayer, CrossLayers
from .layers import Options, Replacement, replacement_at
from .parts import ONLY_OWN, OWN, Attend, Joiner, Place, Reader, Reading, Size

PICTURE = "diffstyler picture"
"""Where the options hold the size of the sampler's latent."""


class Evaluation:
    """What the attention patches of one call know together. x [B, C, h, w]; options: the host's transformer_options."""

    def __init__(
        self, layers: CrossLayers, reader: Reader | None, joiners: Sequence[Joiner], x: Tensor, options: Options
    ) -> None:
        self.chunks = tuple(options.get("cond_or_uncond", (0,)))
        if len(x) % len(self.chunks):
            raise RuntimeError(f"a batch of {len(x)} rows cannot be shared by {len(self.chunks)} prompts of one size.")
        self.layers = {layer.block: layer for layer in layers}
        self.joiners = tuple(joiners)
        self._reader = reader if 0 in self.chunks else None
        self._given = options
        self._latent: Size = (x.shape[-2], x.shape[-1])
        self._readings: dict[tuple[int, Size], tuple[Reading, ...]] = {}
        self._prompts: dict[int, Tensor] = {}
        self.tokens: dict[tuple[int, int], list[int]] = {}
        """By layer and depth, how many tokens each prompt has in the attention that is under way, its own first."""

    def options(self) -> Options:
        """A copy of the options with the reader and the joiners in them; the same ones where nothing is to be done."""
        if self._reader is None and not self.joiners:
            return self._given
        options = {**self._given, "patches_replace": dict(self._given.get("patches_replace", {}))}
        replaced = options["patches_replace"]["attn2"] = dict(options["patches_replace"].get("attn2", {}))
        former = dict(replaced)
        for layer in self.layers.values():
            for depth in range(layer.depth):
                at = (*layer.block, depth)
                replaced[at] = _Replacement(self, layer, depth, replacement_at(former, layer.block, depth))
        if self._reader is not None:
            patches = dict(options.get("patches", {}))
            patches["attn2_patch"] = [_Appending(self, tuple(patches.get("attn2_patch", ())))]
            options["patches"] = patches
        return options

    def place(self, layer: CrossLayer, depth: int, extra_options: Options) -> Place:
        """The attention that the host is at."""
        height, width = extra_options["activations_shape"][-2:]
        return Place(layer, depth, (height, width), self._latent, self.chunks, self._given.get(PICTURE))

    def readings(self, place: Place, like: Tensor) -> tuple[Reading, ...]:
        """What is read at a place, its weights beside ``like`` as [1, tokens, 1]."""
        at = place.layer.number, place.grid
        if at not in self._readings:
            found = ONLY_OWN if self._reader is None else self._reader.readings(place)
            self._readings[at] = tuple(
                Reading(i, weight.to(like)[None, :, None] if isinstance(weight, Tensor) else weight)
                for i, weight in found
            )
        return self._readings[at]

    def prompt(self, number: int, like: Tensor) -> Tensor:
        """A prompt's embedding, the same for every row of ``like`` [B, tokens, width]."""
        if self._reader is not None and number not in self._prompts:
            self._prompts[number] = self._reader.prompts[number - 1].to(like)
        return self._prompts[number].expand(len(like), -1, -1)


class Pair(NamedTuple):
    """A prompt's keys and values [B, tokens, heads * dim]."""

    k: Tensor
    v: Tensor


class _Appending(NamedTuple):
    """An attn2 patch: every prompt goes through the other packs' patches as if it were alone, then all are joined."""

    evaluation: Evaluation
    others: tuple[Any, ...]

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra_options: Options) -> tuple[Tensor, ...]:
        layer, depth = self.evaluation.layers[extra_options["block"]], extra_options["block_index"]
        queries, *own = self._patched(n, context, value, extra_options)
        read = self.evaluation.readings(self.evaluation.place(layer, depth, extra_options), n)
        prompts = [self.evaluation.prompt(i, context) for i, _ in read if i != OWN]
        pairs = [own, *(self._patched(n, prompt, prompt, extra_options)[1:] for prompt in prompts)]
        self.evaluation.tokens[layer.number, depth] = [k.shape[1] for k, _ in pairs]
        keys, values = (torch.cat(parts, 1) if prompts else parts[0] for parts in zip(*pairs, strict=True))
        return queries, keys, values

    def _patched(self, n: Tensor, context: Tensor, value: Tensor, extra_options: Options) -> tuple[Tensor, ...]:
        for patch in self.others:
            n, context, value = patch(n, context, value, extra_options)
        return n, context, value


class _Replacement(NamedTuple):
    """An attn2 replacement: the outermost in its attention.

    previous: another pack's replacement of this block, or the host's attention.
    """

    evaluation: Evaluation
    layer: CrossLayer
    depth: int
    previous: Replacement

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: Options) -> Tensor:
        place = self.evaluation.place(self.layer, self.depth, extra_options)
        attend = self._attend(place, extra_options)
        read = self.evaluation.readings(place, q)
        if all(reading.prompt == OWN for reading in read):
            return attend(q, k, v)
        sizes = self.evaluation.tokens.pop((self.layer.number, self.depth))
        if sum(sizes) != k.shape[1] or len(k) != len(q) or len(q) % len(place.chunks):
            raise RuntimeError(
                f"another pack changed the tokens or rows of cross-attention {self.layer} to {list(k.shape)}, "
                f"where {sum(sizes)} tokens were expected. Bypass other nodes that split the prompt by region."
            )
        pairs = zip(k.split(sizes, 1), v.split(sizes, 1), strict=True)
        own, *others = (Pair(keys.contiguous(), values.contiguous()) for keys, values in pairs)
        return _mixed(q, own, others, read, attend, place.positive(q))

    def _attend(self, place: Place, extra_options: Options) -> Attend:
        """The attention of one prompt, all joiners in it."""

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.previous(q, k, v, extra_options)

        for joiner in self.evaluation.joiners:
            attend = partial(_joined, joiner, place, attend)
        return attend


def _joined(joiner: Joiner, place: Place, inner: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joiner.attend(place, q, k, v, inner)


def _mixed(
    q: Tensor, own: Pair, others: Sequence[Pair], read: Sequence[Reading], attend: Attend, positive: Tensor
) -> Tensor:
    """sum_i w_i Attn(q, k_i, v_i) in the positive rows, the own prompt's attention in all others (dual-style paper).

    others: keys and values of the prompts that are read beside the own one, in the order of ``read``.
    """
    alone = attend(q, *own) if not positive.all() or any(prompt == OWN for prompt, _ in read) else None
    rest = iter(others)
    outs = [alone if prompt == OWN and alone is not None else attend(q, *next(rest)) for prompt, _ in read]
    parts = [out if isinstance(w, float) and w == 1.0 else w * out for out, (_, w) in zip(outs, read, strict=True)]
    mixed = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
    return mixed if alone is None else torch.where(positive, mixed, alone)
