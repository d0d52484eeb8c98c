"""Joint text-image attention against the equations written out in the whole UNet, and beside all else on a MODEL."""

from __future__ import annotations

import cross_bench as cb
import pytest
import tiny
import torch

pytest_plugins = ("guards",)

KINDS = ["sd15", "sd21", "sdxl"]
TOKENS = 4


@pytest.fixture(scope="module")
def models():
    with torch.inference_mode():
        return {kind: tiny.make_model(kind) for kind in KINDS}


def widths(model):
    transformers = cb.spatial_transformers(model.model.diffusion_model)
    return [t.transformer_blocks[0].attn2.to_k.weight.shape[0] for t in transformers]


def image_prompt(pack, model, seed, zero=()):
    """Random tokens and projections for each layer; zeros in the layers of ``zero``."""
    prompt, generator = pack.core.image_prompt.prompt, torch.Generator().manual_seed(seed)
    layers = []
    for number, width in enumerate(widths(model)):
        tokens = torch.randn(1, TOKENS, 32, generator=generator) * (number not in zero)
        k, v = (torch.randn(width, 32, generator=generator) * 32**-0.5 for _ in "kv")
        layers.append(prompt.LayerTokens(tokens, k, v))
    return prompt.ImagePrompt(tuple(layers), "the test")


def joined(pack, model, prompt, scale=1.0, layers="all"):
    return pack.prompts.joint_attention.JointTextImageAttention.execute(model, prompt, scale, layers).result[0]


def written_out(model, prompts, chunks, numbers):
    """Hooks on every attn2 of ``numbers``; prompts: [(image prompt, scale)] in the order of their tokens."""
    handles = []
    for number, spatial in enumerate(cb.spatial_transformers(model.model.diffusion_model)):
        hook, blocks = joint_hook(number, prompts, chunks), spatial.transformer_blocks if number in numbers else ()
        handles += [block.attn2.register_forward_hook(hook, with_kwargs=True) for block in blocks]
    return handles


def joint_hook(number, prompts, chunks):
    def hook(module, args, kwargs, output):
        x, context = args[0], kwargs["context"]
        q, k, v = module.to_q(x).double(), module.to_k(context).double(), module.to_v(context).double()
        shown = torch.tensor([c == 0 for c in chunks]).repeat_interleave(len(x) // len(chunks))[:, None, None].double()
        for prompt, scale in prompts:
            tokens, to_k, to_v = (part.double() for part in prompt.layers[number])
            tokens = tokens * shown  # the negative's tokens are zeros
            k, v = torch.cat([k, scale * (tokens @ to_k.T)], 1), torch.cat([v, scale * (tokens @ to_v.T)], 1)
        q, k, v = (part.unflatten(-1, (module.heads, -1)).transpose(1, 2) for part in (q, k, v))
        maps = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return module.to_out((maps @ v).transpose(1, 2).flatten(-2).to(output))

    return hook


def reference(model, prompts, x, context, chunks, numbers):
    handles = written_out(model, prompts, chunks, numbers)
    try:
        return cb.run(model, x, context, chunks)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("chunks", "scale", "layers", "tokens"),
    [([1, 0], 1.0, "all", 77), ([0, 1, 0], 0.4, "0-2,5,8-10", 154), ([0], 1.7, "3-6", 77), ([1], 1.0, "all", 77)],
)
def test_it_is_the_written_out_equation_in_the_whole_unet(
    pack, models, seed, measured, kind, chunks, scale, layers, tokens
):
    """Two pictures a batch, both prompts in any order and alone, longer prompts, some layers, layers of zero tokens."""
    model, rows = models[kind], 2 * len(chunks)
    prompt = image_prompt(pack, model, seed, zero=(0, 5))
    x = cb.latent(seed, rows, 16, 12)
    context = torch.cat([cb.prompt(seed + 10 + i, tokens) for i in range(rows)])
    numbers = range(16) if layers == "all" else pack.core.injection.sites.parse_layers(layers)
    ours = cb.run(joined(pack, model, prompt, scale, layers), x, context, chunks)
    theirs = reference(model, [(prompt, scale)], x, context, chunks, numbers)
    plain = cb.run(model, x, context, chunks)
    assert cb.relative(plain, theirs) > 1e-3, "the picture had no effect: the comparison says nothing"
    measured("x0 against the written-out UNet, relative", cb.relative(ours, theirs), at_most=1e-5)


def test_two_image_prompts_stand_side_by_side(pack, models, seed):
    model, chunks = models["sd15"], [1, 0]
    first, second = image_prompt(pack, model, seed), image_prompt(pack, model, seed + 1)
    x, context = cb.latent(seed, 2, 16, 16), torch.cat([cb.prompt(seed + 2), cb.prompt(seed + 3)])
    ours = cb.run(joined(pack, joined(pack, model, first), second, 0.5), x, context, chunks)
    theirs = reference(model, [(first, 1.0), (second, 0.5)], x, context, chunks, range(16))
    assert cb.relative(ours, theirs) < 1e-5


def test_a_blended_prompt_is_read_together_with_the_picture(pack, models, seed):
    """A mask of one everywhere: as if that prompt were the sampler's own; wired before or after."""
    model, chunks = models["sd15"], [1, 0]
    picture, negative, own = image_prompt(pack, model, seed), cb.prompt(seed + 2), cb.prompt(seed + 3)
    style = pack.core.styles.style.Style(None, tiny.make_prompt(seed + 4), mask=torch.ones(16, 16))
    blend, machine = pack.host.cross_attention.blend, pack.host.cross_attention.machine
    x = cb.latent(seed, 2, 16, 16)
    wanted = cb.run(joined(pack, model, picture), x, torch.cat([negative, style.positive[0][0]]), chunks)
    for patched in (
        joined(pack, machine.with_reader(model, blend.blended(model, (style,))), picture),
        machine.with_reader(joined(pack, model, picture), blend.blended(model, (style,))),
    ):
        assert cb.relative(cb.run(patched, x, torch.cat([negative, own]), chunks), wanted) < 1e-5


@pytest.mark.parametrize("first", [True, False])
def test_another_packs_replacement_gets_the_joined_tokens(pack, models, seed, first):
    """IP-Adapter-like: what it adds is added, whichever was wired first."""
    model, picture = models["sd15"], image_prompt(pack, models["sd15"], seed)
    seen = []

    def replacement(q, k, v, extra_options):
        seen.append(k.shape[1])
        return pack.host.cross_attention.layers.attend(q, k, v, extra_options) + 1.0

    x, context = cb.latent(seed, 2, 16, 16), torch.cat([cb.prompt(seed + 2), cb.prompt(seed + 3)])
    patched = model.clone()
    if not first:
        patched = joined(pack, patched, picture)
    patched.set_model_attn2_replace(replacement, "output", 4)
    if first:
        patched = joined(pack, patched, picture)
    out = cb.run(patched, x, context, [1, 0])
    assert seen == [77 + TOKENS]
    assert cb.relative(out, cb.run(joined(pack, model, picture), x, context, [1, 0])) > 1e-4


def test_injection_and_the_picture_act_together(pack, bench, seed):
    """Features captured without the picture, injected beside it; the run without it is as before."""
    features = bench.capture(bench.invert()[0])[0]
    patched = joined(pack, bench.model, image_prompt(pack, bench.model, seed))
    plain, with_picture = (bench.sampler(features, model=model)[0]["samples"] for model in (bench.model, patched))
    assert cb.relative(with_picture, plain) > 1e-4
    assert torch.equal(bench.sampler(features)[0]["samples"], plain)
    assert torch.equal(bench.sampler(features, model=patched)[0]["samples"], with_picture)


def test_injected_cross_attention_wants_a_capture_with_the_picture(pack, bench, seed):
    """The content's keys of 77 tokens do not stand beside 81; captured with the same MODEL they are as many."""
    patched = joined(pack, bench.model, image_prompt(pack, bench.model, seed))
    trajectory, settings = bench.invert()[0], {"cross_attention_layers": "2"}
    without, within = (bench.capture(trajectory, model=model, **settings)[0] for model in (bench.model, patched))
    with pytest.raises(ValueError, match=r"captured with 77 tokens .* this run has 81"):
        bench.sampler(without, model=patched)
    assert bench.sampler(within, model=patched)[0]["samples"].isfinite().all()


def test_the_model_that_came_in_is_as_before(pack, models, seed):
    """Bit for bit, also after an error in the run; a second run gives the same."""
    model = models["sd21"]
    x, context = cb.latent(seed, 2, 16, 16), torch.cat([cb.prompt(seed + 2), cb.prompt(seed + 3)])
    before = cb.run(model, x, context, [1, 0])
    patched = joined(pack, model, image_prompt(pack, model, seed))
    found = [cb.run(patched, x, context, [1, 0]) for _ in range(2)]
    assert torch.equal(*found)
    with pytest.raises(RuntimeError, match=r"cannot be shared by 3 prompts"):
        cb.run(patched, x, context, [1, 0, 0])
    assert torch.equal(cb.run(model, x, context, [1, 0]), before)
    assert not torch.equal(found[0], before)


def test_scale_zero_is_zero_tokens_and_not_the_plain_model(pack, models, seed):
    model = models["sd15"]
    zeros = image_prompt(pack, model, seed, zero=range(16))
    x, context = cb.latent(seed, 2, 16, 16), torch.cat([cb.prompt(seed + 2), cb.prompt(seed + 3)])
    muted = cb.run(joined(pack, model, image_prompt(pack, model, seed), 0.0), x, context, [1, 0])
    assert torch.equal(muted, cb.run(joined(pack, model, zeros), x, context, [1, 0]))
    assert cb.relative(muted, cb.run(model, x, context, [1, 0])) > 1e-4


def test_what_does_not_fit_is_refused_by_name(pack, models, seed):
    prompt, node = image_prompt(pack, models["sd15"], seed), pack.prompts.joint_attention.JointTextImageAttention
    core = pack.core.image_prompt.prompt
    wide = core.ImagePrompt(tuple(core.LayerTokens(*(torch.zeros(*t.shape[:-1], 24) for t in layer))
                                  for layer in prompt.layers), "the test")  # fmt: skip
    narrow = core.ImagePrompt(
        tuple(core.LayerTokens(layer.tokens, layer.to_k[:-8], layer.to_v[:-8]) for layer in prompt.layers), "the test"
    )
    bad = core.ImagePrompt((prompt.layers[0]._replace(to_k=prompt.layers[0].to_k / 0), *prompt.layers[1:]), "the test")
    for model, given, scale, layers, words in (
        (models["sdxl"], prompt, 1.0, "all", r"the test made it for a UNet of 16 .* this model has 11"),
        (models["sd15"], wide, 1.0, "all", r"tokens of width 24 .* prompts have 32"),
        (models["sd15"], narrow, 1.0, "all", r"24 channels in layer 0 \(input 1.* has 32"),
        (models["sd15"], bad, 1.0, "all", r"image_prompt, layer 0 holds values that are not finite"),
        (models["sd15"], prompt, float("nan"), "all", r"scale must be a number in 0\.\.10"),
        (models["sd15"], prompt, -0.1, "all", r"scale must be a number in 0\.\.10"),
        (models["sd15"], prompt, 1.0, "", r"layers: none are named"),
        (models["sd15"], prompt, 1.0, "3,16-17", r"layers: cross-attention layers 16-17 do not exist"),
        (models["sd15"], prompt, 1.0, "three", r"layers must be written like"),
    ):
        with pytest.raises(ValueError, match=words):
            node.execute(model, given, scale, layers)
    assert "layers must be written like" in node.validate_inputs(layers="three")
    assert node.validate_inputs(layers="0-3") is True
    assert node.validate_inputs() is True
