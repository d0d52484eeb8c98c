"""Cross-attention that reads several prompts, against the equations written out in the whole UNet."""

from __future__ import annotations

import cross_bench as cb
import pytest
import tiny
import torch

KINDS = ["sd15", "sd21", "sdxl"]


@pytest.fixture(scope="module")
def models():
    with torch.inference_mode():
        return {kind: tiny.make_model(kind) for kind in [*KINDS, "small"]}


def style(pack, seed, mask=None, tokens=77, sdxl=False, **fields):
    return pack.core.styles.style.Style(None, tiny.make_prompt(seed, tokens, sdxl), mask=mask, **fields)


def blending(pack, model, styles):
    blend = pack.host.cross_attention.blend
    return pack.host.cross_attention.machine.with_reader(model, blend.blended(model, tuple(styles)))


def splitting(pack, model, semantic, style, coarse):
    reader = pack.host.cross_attention.layer_split.LayerSplit(semantic, style, coarse)
    return pack.host.cross_attention.machine.with_reader(model, reader)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("chunks", "size"), [([1, 0], (16, 24)), ([0, 1, 0], (17, 13)), ([0], (9, 8))])
def test_blend_is_the_written_out_sum_in_the_whole_unet(pack, models, seed, measured, kind, chunks, size):
    """Three prompts of 77, 154 and 93 tokens, soft masks that overlap, odd sizes, two pictures a batch."""
    model, rows = models[kind], 2 * len(chunks)
    masks = torch.rand(2, *size, generator=torch.Generator().manual_seed(seed))
    styles = [style(pack, seed + 1, masks[0], 154), style(pack, seed + 2, 0.7 * masks[1], 93)]
    x, context = cb.latent(seed, rows, *size), torch.cat([cb.prompt(seed + 10 + i) for i in range(rows)])
    ours = cb.run(blending(pack, model, styles), x, context, chunks)
    total = (masks[0] + 0.7 * masks[1]).double()
    shares = [masks[0] / total.clamp(min=1), 0.7 * masks[1] / total.clamp(min=1), (1 - total).clamp(min=0)]

    def weights(number, height, width):
        prompts = [styles[0].positive[0][0], styles[1].positive[0][0], None]
        return [(p, cb.area(share, height, width)) for p, share in zip(prompts, shares, strict=True)]

    with cb.written_out(model, chunks, weights):
        theirs = cb.run(model, x, context, chunks)
    plain = cb.run(model, x, context, chunks)
    assert cb.relative(plain, theirs) > 1e-3, "blending had no effect: the comparison says nothing"
    measured("x0 against the written-out UNet, relative", cb.relative(ours, theirs), at_most=1e-5)
    for at, chunk in enumerate(chunks):
        if chunk != 0:
            assert torch.equal(ours[2 * at : 2 * at + 2], plain[2 * at : 2 * at + 2]), "the negative rows changed"
