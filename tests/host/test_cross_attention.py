"""Cross-attention that reads several prompts, against the equations written out in the whole UNet."""

from __future__ import annotations

import comfy.ldm.modules.attention
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


@pytest.mark.parametrize("kind", KINDS)
def test_split_is_the_written_out_unet(pack, models, seed, measured, kind):
    """Coarse layers read one prompt, the others the second; then one of both is the sampler's own."""
    model, chunks = models[kind], [1, 0]
    x, context = cb.latent(seed, 2, 16, 16), torch.cat([cb.prompt(seed + i) for i in (1, 2)])
    coarse = pack.core.injection.cross_layers.coarse_as_deadiff(pack.host.cross_attention.layers.cross_layers(model))
    semantic, look = cb.prompt(seed + 3, 154), cb.prompt(seed + 4, 93)
    plain = cb.run(model, x, context, chunks)
    for first, second in ((semantic, look), (None, look), (semantic, None)):
        ours = cb.run(splitting(pack, model, first, second, coarse), x, context, chunks)
        with cb.written_out(model, chunks, lambda n, *_, a=first, b=second: [(a if n in coarse else b, 1.0)]):
            theirs = cb.run(model, x, context, chunks)
        assert cb.relative(plain, theirs) > 1e-3
        assert torch.equal(ours[:1], plain[:1]), "the negative row changed"
        measured("x0 against the written-out UNet, relative", cb.relative(ours, theirs), at_most=1e-5)


@pytest.mark.parametrize(
    ("kind", "grids", "deadiff", "by_grid"),
    [
        ("sd15", "1 1 2 2 4 4 8 4 4 4 2 2 2 1 1 1", (4, 5, 6, 7, 8), (4, 5, 6, 7, 8, 9)),
        ("sd21", "1 1 2 2 4 4 8 4 4 4 2 2 2 1 1 1", (4, 5, 6, 7, 8), (4, 5, 6, 7, 8, 9)),
        ("sdxl", "2 2 4 4 4 4 4 4 2 2 2", (2, 3, 4, 5, 6), (2, 3, 4, 5, 6, 7)),
    ],
)
def test_layers_are_numbered_as_deadiff_does(pack, models, kind, grids, deadiff, by_grid):
    core = pack.core.injection.cross_layers
    layers = pack.host.cross_attention.layers.cross_layers(models[kind])
    assert [layer.cell for layer in layers] == [int(cell) for cell in grids.split()]
    assert [layer.number for layer in layers] == list(range(len(layers)))
    assert core.coarse_as_deadiff(layers) == deadiff
    assert core.coarse_by_grid(layers) == by_grid
    seen = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-1]))
        for module in cb.spatial_transformers(models[kind].model.diffusion_model)
    ]
    cb.run(models[kind], cb.latent(1, 1, 32, 32), cb.prompt(1), [0])
    for handle in handles:
        handle.remove()
    assert seen == [32 // layer.cell for layer in layers]


@pytest.mark.parametrize("tokens", [77, 154, 93])
def test_masks_of_one_zero_and_half(pack, models, seed, measured, tokens):
    """All one is that prompt's own run, all zero the sampler's, half and half the mean of the two attentions."""
    model, chunks = models["small"], [1, 0]
    x, negative, own = cb.latent(seed, 2, 10, 12), cb.prompt(seed + 1, tokens), cb.prompt(seed + 2, tokens)
    context, there = torch.cat([negative, own]), style(pack, seed + 3, torch.ones(80, 96), tokens)
    plain = cb.run(model, x, context, chunks)
    alone = cb.run(model, x, torch.cat([negative, there.positive[0][0]]), chunks)
    one = cb.run(blending(pack, model, [there]), x, context, chunks)
    measured("mask of ones against that prompt alone", cb.relative(one, alone), at_most=1e-6)
    zero = cb.run(blending(pack, model, [there._replace(mask=torch.zeros(80, 96))]), x, context, chunks)
    assert torch.equal(zero, plain)
    half = cb.run(blending(pack, model, [there._replace(mask=torch.full((80, 96), 0.5))]), x, context, chunks)
    with cb.written_out(model, chunks, lambda *_: [(None, 0.5), (there.positive[0][0], 0.5)]):
        measured("half", cb.relative(half, cb.run(model, x, context, chunks)), at_most=1e-5)


def adapter(calls):
    """An attention replacement as IP-Adapter's: image tokens of its own, by the rows of cond_or_uncond."""
    tokens = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(5))

    def patch(q, k, v, extra_options):
        chunks = extra_options["cond_or_uncond"]
        assert len(q) % len(chunks) == 0
        assert len(q) == len(k) == len(v)
        calls.append(k.shape[1])
        image = torch.cat([tokens[c : c + 1].expand(len(q) // len(chunks), -1, -1) for c in chunks])
        attend = comfy.ldm.modules.attention.optimized_attention
        heads = extra_options["n_heads"]
        return attend(q, k, v, heads) + 0.5 * attend(q, image, image, heads)

    return patch


def hypernetwork(calls):
    """An attn2 patch that changes keys and values apart, token by token, as the host's hypernetworks do."""

    def patch(n, context, value, extra_options):
        calls.append(context.shape[1])
        return n, context * 1.5, value - 0.25 * context.roll(1, -1)

    return patch


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("other", ["replacement", "replacement of one depth", "patch"])
def test_other_packs_patches_act_on_every_prompt(pack, models, seed, measured, before, other):
    """Wired before or after: with a mask of ones the run is that prompt's own under the same patches."""
    model, chunks, calls = models["small"], [1, 0], []

    def patched(base):
        clone = base.clone()
        if other == "patch":
            clone.set_model_attn2_patch(hypernetwork(calls))
        else:
            clone.set_model_attn2_replace(adapter(calls), "output", 2, *([0] if "depth" in other else []))
        return clone

    x, context = cb.latent(seed, 2, 8, 8), torch.cat([cb.prompt(seed + i) for i in (1, 2)])
    there = style(pack, seed + 3, torch.ones(64, 64))
    both = blending(pack, patched(model), [there]) if before else patched(blending(pack, model, [there]))
    ours = cb.run(both, x, context, chunks)
    assert calls
    assert set(calls) == {77}, "each prompt is to be handed on by itself"
    count = len(calls)
    alone = cb.run(patched(model), x, torch.cat([context[:1], there.positive[0][0]]), chunks)
    assert count == 2 * (len(calls) - count), "once for each prompt"
    measured("against that prompt alone, relative", cb.relative(ours, alone), at_most=1e-6)
    assert not torch.equal(ours, cb.run(blending(pack, model, [there]), x, context, chunks)), "they did nothing"


def test_joiners_lie_inside_of_a_reader_and_around_each_other(pack, models, seed, measured):
    """Two joiners and a blend: every prompt is read with both joiners' keys and values, whichever was added first."""
    machine = pack.host.cross_attention.machine
    model, chunks = models["small"], [1, 0]

    class Tokens:
        def __init__(self, at):
            self.tokens = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(at))

        def attend(self, place, q, k, v, inner):
            if place.layer.number == 0:
                return inner(q, k, v)
            extra = torch.where(place.positive(q), self.tokens.expand(len(q), -1, -1), torch.zeros(()))
            return inner(q, torch.cat([k, extra], 1), torch.cat([v, extra], 1))

    x, context = cb.latent(seed, 2, 8, 8), torch.cat([cb.prompt(seed + i) for i in (1, 2)])
    there = style(pack, seed + 3, torch.ones(64, 64), 154)
    joined = machine.with_joiner(machine.with_joiner(model, Tokens(1)), Tokens(2))
    ours = cb.run(blending(pack, joined, [there]), x, context, chunks)
    after = cb.run(
        machine.with_joiner(blending(pack, machine.with_joiner(model, Tokens(1)), [there]), Tokens(2)),
        x,
        context,
        chunks,
    )
    assert torch.equal(ours, after)
    longer = torch.cat([context[:1], context[:1]], 1)
    alone = cb.run(joined, x, torch.cat([longer, there.positive[0][0]]), chunks)
    measured("positive rows against that prompt alone", cb.relative(ours[1:], alone[1:]), at_most=1e-6)
    assert torch.equal(ours[:1], cb.run(joined, x, context, chunks)[:1])
    assert not torch.equal(ours, cb.run(blending(pack, model, [there]), x, context, chunks))


def test_nothing_is_done_for_a_batch_of_negative_rows_only(pack, models, seed):
    model = models["small"]
    x, context = cb.latent(seed, 2, 8, 8), cb.prompt(seed).expand(2, -1, -1)
    blended = blending(pack, model, [style(pack, seed + 1, torch.ones(8, 8))])
    assert torch.equal(cb.run(blended, x, context, [1]), cb.run(model, x, context, [1]))


def test_a_tile_or_an_area_is_refused(pack, models, seed):
    """The masks lie over the whole picture, and nothing says which part of it is evaluated."""
    blended = blending(pack, models["small"], [style(pack, seed, torch.ones(8, 8))])
    key = pack.host.cross_attention.call.PICTURE
    with pytest.raises(ValueError, match="masks lie over the whole picture, and 8 x 8 latent pixels of 16 x 8"):
        cb.run(blended, cb.latent(seed, 1, 8, 8), cb.prompt(seed), [0], **{key: (8, 16)})


def test_a_patch_that_repeats_rows_is_named_as_the_cause(pack, models, seed):
    blended = blending(pack, models["small"], [style(pack, seed, torch.ones(8, 8))])
    blended.set_model_attn2_patch(lambda n, k, v, options: (n, k.repeat(2, 1, 1), v.repeat(2, 1, 1)))
    with pytest.raises(RuntimeError, match="changed the tokens or rows of cross-attention"):
        cb.run(blended, cb.latent(seed, 1, 8, 8), cb.prompt(seed), [0])
