"""Injection: against attention maps written out in float64, against nothing, and against the content itself."""

from __future__ import annotations

import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import pytest
import reference
import steps
import tiny
import torch

HEADS = 4  # of the 'small' model: 32 channels, 8 per head


def observed(model):
    """(a clone of the MODEL, [(UNet input, UNet output)] of each evaluation from now on)."""
    seen = []

    def wrapper(executor, x, *args, **kwargs):
        out = executor(x, *args, **kwargs)
        seen.append((x.clone(), out.clone()))
        return out

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "observed", wrapper)
    return clone, seen


def scene(pack, seed, kind="small", **capturing):
    """(MODEL with diffusers' first weights, features, positive, negative)."""
    _, model = reference.pair(kind, seed)
    content, positive, negative = (tiny.make_prompt(seed + i) for i in range(3))
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(seed, 8), content)
    return model, steps.capture(pack, model, trajectory, content, **capturing), positive, negative


def relative(ours, theirs) -> float:
    """Largest difference at unit scale; guidance over four long steps takes latents to several units."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0)).item()


def kappa_of(step: int, mode: str) -> float:
    """Timesteps 751, 501, 251, 1 with 2 of 4 steps in full: T_a = 500, kappa = 1 - t / 500 below."""
    if mode == "fixed":
        return 0.0 if step < 2 else 1.0
    return max(0.0, 1.0 - (751, 501, 251, 1)[step] / 500.0)


def written_out(model, features, positive, negative, cfg, mode, blend):
    """The same run by the host's own euler sampler, hooks and patches, with the maps of eq. 5 written out.

    Returns [(UNet input, UNet output)] of each evaluation.
    """
    schedule = features.trajectory.schedule
    clone, seen = observed(model)
    unet = clone.model.diffusion_model
    at = {"step": 0}

    def count(executor, *args, **kwargs):
        out = executor(*args, **kwargs)
        at["step"] += 1
        return out

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "count", count)

    def content(kind, layer):
        return next(v for s, v in features.at(at["step"]).items() if (s.kind, s.layer) == (kind, layer))

    def attention(layer):
        def patch(q, k, v, extra_options):
            taken = content("self-attention", layer)
            return reference.blended_attention(q, k, v, taken, kappa_of(at["step"], mode), blend, HEADS)

        return patch

    def feature(module, args, output):
        return content("feature", 1)[0].expand_as(output) if at["step"] < 2 else output

    for layer in (2, 3):
        clone.set_model_attn1_replace(attention(layer), "output", layer)
    hook = unet.output_blocks[1][0].out_layers.register_forward_hook(feature)
    try:
        sigmas = torch.tensor([schedule.sigma(t) for t in schedule.timesteps] + [schedule.sigma(0)])
        start = features.trajectory.noise * (1 + sigmas[0] ** 2).sqrt()
        guider = comfy.samplers.CFGGuider(clone)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        start = model.model.process_latent_out(start)
        guider.sample(torch.zeros_like(start), start, comfy.samplers.ksampler("euler"), sigmas, disable_pbar=True)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(("mode", "blend"), [("adaptive", "map"), ("adaptive", "qk"), ("fixed", "map")])
def test_injection_is_the_blend_of_the_written_out_maps(pack, seed, measured, mode, blend, cfg):
    """Every UNet input and output of a whole run, features and both attention layers injected."""
    model, features, positive, negative = scene(pack, seed)
    clone, ours = observed(model)
    steps.sample(pack, clone, features, positive, negative, cfg=cfg, attention_mode=mode, blend=blend)
    theirs = written_out(model, features, positive, negative, cfg, mode, blend)
    assert len(ours) == len(theirs) == 4
    worst = max(relative(a, b) for o, t in zip(ours, theirs, strict=True) for a, b in zip(o, t, strict=True))
    largest = max(t.abs().max().item() for step in theirs for t in step)
    measured("UNet inputs and outputs against written-out maps, relative", worst / largest, at_most=1e-5)
    plain, untouched = observed(model)
    steps.sample(pack, plain, features, positive, negative, cfg=cfg, feature_steps=0, attention_steps=0)
    assert (untouched[0][1] - ours[0][1]).abs().max() > 1e-3, "injection had no effect: the comparison says nothing"


def test_the_two_blends_differ(pack, seed):
    model, features, positive, negative = scene(pack, seed)
    qk, map_ = (steps.sample(pack, model, features, positive, negative, blend=blend) for blend in ("qk", "map"))
    assert (qk - map_).abs().max() > 1e-5


@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
@pytest.mark.parametrize("with_lora", [False, True])
def test_switched_off_is_no_injection_bit_for_bit(pack, seed, mode, with_lora):
    model, features, positive, negative = scene(pack, seed)
    style = steps.random_lora(pack, model, seed) if with_lora else None
    off = steps.sample(
        pack, model, features, positive, negative, feature_steps=0, attention_steps=0, attention_mode=mode, lora=style
    )
    start = pack.host.sampling.stylize.choose_start(model, features.trajectory, None)
    lora = pack.host.lora.run.LoraRun(model, style, 1.0, "lora", 4)
    content = pack.host.sampling.branches.Content(model, features, features.trajectory, "features")
    empty = pack.core.injection.plan.InjectionPlan(4, 4, 4)  # windows over everything, no site to act on
    for injected in (None, pack.host.sampling.branches.Injected(content, empty)):
        everywhere = pack.host.sampling.branches.Branch(torch.ones(8, 8), lora, None, injected)
        alone = pack.host.sampling.branches.Composition((everywhere,), None)
        none = pack.host.sampling.stylize.sample_injected(
            model, features.trajectory, alone, positive, negative, 3.0, start
        )
        assert torch.equal(off, none)
    assert torch.equal(off, none)
    assert not torch.equal(off, steps.sample(pack, model, features, positive, negative, lora=style))


@pytest.mark.parametrize(
    ("feature_steps", "attention_steps", "mode", "inside"),
    [(2, 0, "adaptive", 2), (0, 1, "fixed", 1), (2, 3, "fixed", 3), (1, 0, "fixed", 1)],
)
def test_steps_outside_the_windows_are_untouched(pack, seed, feature_steps, attention_steps, mode, inside):
    """From one and the same latent, a step outside every window gives the bits of a run without injection."""
    model, features, positive, negative = scene(pack, seed)
    clone, seen = observed(model)
    steps.sample(
        pack, clone, features, positive, negative, feature_steps=feature_steps, attention_steps=attention_steps,
        attention_mode=mode,
    )  # fmt: skip
    for step, (x, out) in enumerate(seen):
        t = torch.full((x.shape[0],), float(features.trajectory.schedule.timesteps[step]))
        order = [negative, positive] if torch.equal(plain_rows(model, x, t, [negative, positive]), out) else None
        order = order or [positive, negative]
        same = torch.equal(plain_rows(model, x, t, order), out)
        assert same == (step >= inside), f"step {step}"


def plain_rows(model, x, t, prompts):
    return model.model.diffusion_model(x, t, context=torch.cat([p[0][0] for p in prompts]))


def test_content_comes_back_from_its_own_injection(pack, seed, measured):
    """Strength 0, everything injected S of S, the content's own prompt, cfg 1: the content's trajectory again."""
    _, model = reference.pair("small", seed)
    latent, empty = tiny.make_latent(seed, 8), tiny.make_prompt(seed)
    trajectory, *_ = steps.invert(pack, model, latent, empty, steps=50, refinement=8)
    features = steps.capture(
        pack, model, trajectory, empty, feature_layers="0-3", feature_steps=50, attention_steps=50,
        cross_attention_layers="2-3",
    )  # fmt: skip
    clone, seen = observed(model)
    style = steps.random_lora(pack, model, seed)
    back = steps.sample(
        pack,
        clone,
        features,
        empty,
        empty,
        cfg=1.0,
        feature_steps=50,
        attention_steps=50,
        lora=style,
        lora_strength=0.0,
    )
    path = max((x - z).abs().max().item() for (x, _), z in zip(seen, trajectory.latents, strict=False))
    measured("content trajectory, largest difference", path, at_most=1e-3)
    error = ((back - latent["samples"]).norm() / latent["samples"].norm()).item()
    measured("content itself, relative", error, at_most=1e-3)


@pytest.mark.parametrize("storage", ["memory", "recompute"])
def test_low_memory_splits_the_batch_with_the_same_result(pack, seed, measured, monkeypatch, storage):
    model, features, positive, negative = scene(pack, seed, storage=storage)
    style = steps.random_lora(pack, model, seed, size=0.2)
    clone, seen = observed(model)
    together = steps.sample(pack, clone, features, positive, negative, cfg=2.0, lora=style)
    batches = [x.shape[0] for x, _ in seen]
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0)
    seen.clear()
    apart = steps.sample(pack, clone, features, positive, negative, cfg=2.0, lora=style)
    assert max(batches) == 2
    assert {x.shape[0] for x, _ in seen} == {1}
    assert len(seen) == sum(batches)
    error = (together - apart).abs().max() / together.abs().max()
    measured("split against batched, relative to the latent's largest value", error.item(), at_most=1e-5)


@pytest.mark.parametrize("key", [("output", 2), ("output", 2, 0)])
def test_another_packs_attention_patch_gets_the_changed_q_and_k(pack, seed, key):
    model, features, positive, negative = scene(pack, seed)
    calls = []

    def theirs(q, k, v, extra_options):
        calls.append((q.clone(), k.clone()))
        return torch.zeros_like(v)

    patched = model.clone()
    patched.set_model_attn1_replace(theirs, *key[:2], *key[2:])
    other = steps.sample(pack, patched, features, positive, negative, attention_steps=4)
    assert len(calls) == 4
    for step, (q, k) in enumerate(calls):
        content = next(v for s, v in features.at(step).items() if (s.kind, s.layer) == ("self-attention", 2))
        assert torch.equal(q, content[0].expand_as(q))
        assert torch.equal(k, content[1].expand_as(k))
    assert not torch.equal(other, steps.sample(pack, model, features, positive, negative, attention_steps=4))


def test_token_lengths_may_differ(pack, seed, monkeypatch):
    """The host pads a short prompt by repeating it; injected cross-attention follows."""
    model, features, _, negative = scene(pack, seed, cross_attention_layers="2-3")
    longer = tiny.make_prompt(seed + 7, tokens=154)
    samples = steps.sample(pack, model, features, longer, negative, cfg=2.0)
    assert torch.isfinite(samples).all()
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0)
    apart = steps.sample(pack, model, features, longer, negative, cfg=2.0)
    assert (samples - apart).abs().max() / samples.abs().max() < 1e-5
