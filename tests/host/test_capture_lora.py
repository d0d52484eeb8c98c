"""Captures of a LoRA's own run, and captures that are recomputed: the same by every storage, or refused by name."""

from __future__ import annotations

import comfy.sd
import pytest
import steps
import tiny
import torch
from probes import counting, state_of
from test_regions import SIZE, Scene

LEFT = torch.zeros(1, 64, 96)
LEFT[..., :48] = 1.0


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed, 2)


def capture(scene, model=None, source=None, **changes):
    model, source = model or scene.model, source or scene.empty
    return steps.capture(scene.pack, model, scene.trajectory, source, **changes)


def with_lora(scene, i=0, strength=1.0):
    """The MODEL as Load LoRA gives it."""
    return comfy.sd.load_lora_for_models(scene.model, None, scene.loras[i], strength, 0)[0]


@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_it_is_the_run_of_the_unet_with_the_lora(scene, measured, strength):
    own = capture(scene, lora=scene.loras[0], lora_strength=strength)
    loaded = capture(scene, with_lora(scene, 0, strength))
    base = capture(scene)
    for step in range(4):
        for site, tensors in own.at(step).items():
            for mine, theirs, plain in zip(tensors, loaded.at(step)[site], base.at(step)[site], strict=True):
                scale = theirs.abs().max().item()
                error = (mine - theirs).abs().max().item() / scale
                measured(f"{site}, step {step}, against Load LoRA, relative", error, at_most=1e-4)
                assert (mine - plain).abs().max() > 1e-3


def test_a_schedule_gives_each_step_its_lora(scene):
    """Steps 0 and 1 of the first LoRA, then the base model."""
    switch = scene.pack.pipeline.switch.LoraSwitch.execute(
        lora=scene.loras[0],
        strength=1.0,
        start_percent=0.0,
        end_percent=0.5,
        ramp_in_percent=0.0,
        ramp_out_percent=0.0,
        name="first",
    ).args[0]
    mixed, own, base = capture(scene, lora=switch), capture(scene, lora=scene.loras[0]), capture(scene)
    for step, same in ((0, own), (1, own), (2, base), (3, base)):
        for site, tensors in mixed.at(step).items():
            there = same.at(step)[site]
            if same is base:
                assert all(torch.equal(a, b) for a, b in zip(tensors, there, strict=True))
            else:  # rounded otherwise: the LoRA of the whole run has weights of its own
                torch.testing.assert_close(tensors, there, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_every_storage_gives_the_same_bits(scene, lora):
    wired = {"lora": scene.loras[1], "lora_strength": 0.8} if lora else {}
    results = []
    for storage in ("memory", "disk", "recompute"):
        scene.features = capture(scene, storage=storage, **wired)
        results.append(scene.sample(lora=scene.loras[0]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    scene.features = capture(scene)
    assert torch.equal(results[0], scene.sample(lora=scene.loras[0])) != lora


def test_two_recomputed_contents_cost_a_row_each(scene):
    model, rows = counting(scene.model)
    captures = [capture(scene, model, storage="recompute", lora=lora) for lora in scene.loras]
    stored = [capture(scene, lora=lora) for lora in scene.loras]
    results = []
    for features in (captures, stored):
        masks = zip(scene.loras, scene.prompts, (LEFT, 1 - LEFT), features, strict=True)
        chain = [{"lora": o, "positive": p, "mask": m, "features": f} for o, p, m, f in masks]
        rows.clear()
        results.append(scene.sample(model, styles=steps.chain(scene.pack, *chain)))
        assert rows == ([1, 1, 4] if features is captures else [4]) * 4
    assert torch.equal(*results)


def test_recompute_with_another_models_weights_is_refused(scene):
    """Silently the base's features before, bit for bit."""
    model, rows = counting(scene.model)
    scene.features = capture(scene, with_lora(scene), storage="recompute")
    with pytest.raises(ValueError, match=r"features: its storage is 'recompute', but .*another MODEL.*input lora"):
        scene.sample(model)
    assert rows == []
    loaded = with_lora(scene)
    assert torch.isfinite(scene.sample(loaded)).all(), "the same LoRA loaded again is the same MODEL"
    scene.features = capture(scene, with_lora(scene))
    assert torch.isfinite(scene.sample(model)).all(), "stored, any MODEL's features may be injected"


def test_recompute_runs_under_the_patches_of_captures_model(scene):
    """What another pack hangs on the sampler's MODEL alone does not reach the content's own run."""
    patched = scene.model.clone()
    patched.set_model_attn1_patch(lambda q, k, v, extra: (q * 0.9, k, v))
    for captured, sampled in ((scene.model, patched), (patched, scene.model)):
        results = []
        for storage in ("memory", "recompute"):
            scene.features = capture(scene, captured, storage=storage)
            results.append(scene.sample(sampled, lora=scene.loras[0]))
        assert torch.equal(*results)


def test_own_features_of_other_steps_or_sizes_are_refused(scene):
    longer, *_ = steps.invert(scene.pack, scene.model, scene.latent, scene.empty, steps=5)
    other = steps.capture(scene.pack, scene.model, longer, scene.empty, attention_steps=5)
    small, *_ = steps.invert(scene.pack, scene.model, tiny.make_latent(size=8), scene.empty)
    model, rows = counting(scene.model)
    for features, words in (
        (other, "features of style 1: captured over 5 steps"),
        (steps.capture(scene.pack, scene.model, small, scene.empty), r"features of style 1: .*\[1, 4, 8, 8\]"),
    ):
        own = {"lora": scene.loras[0], "positive": scene.prompts[0], "mask": LEFT, "features": features}
        with pytest.raises(ValueError, match=words):
            scene.sample(model, styles=steps.chain(scene.pack, own))
    foreign = tiny.make_model("small", velocity=True)
    trajectory, *_ = steps.invert(scene.pack, foreign, scene.latent, scene.empty)
    features = steps.capture(scene.pack, foreign, trajectory, scene.empty)
    own = {"lora": scene.loras[0], "positive": scene.prompts[0], "mask": LEFT, "features": features}
    with pytest.raises(ValueError, match="features of style 1 was made with another kind of model"):
        scene.sample(model, styles=steps.chain(scene.pack, own))
    assert rows == []


def test_a_lora_that_does_not_fit_is_refused_before_the_run(scene):
    model, rows = counting(scene.model)
    foreign = steps.random_lora(scene.pack, tiny.make_model("sdxl"), 1)
    for storage in ("memory", "recompute"):
        with pytest.raises(ValueError, match=r"^lora.*family"):
            capture(scene, model, storage=storage, lora=foreign)
    with pytest.raises(ValueError, match=r"lora_strength must be a number .*nan"):
        capture(scene, model, lora=scene.loras[0], lora_strength=float("nan"))
    assert rows == []


def test_nothing_stays_on_the_model(scene):
    before = state_of(scene.model)
    capture(scene, lora=scene.loras[0])
    scene.features = capture(scene, storage="recompute", lora=scene.loras[1])
    scene.sample(lora=scene.loras[0])
    assert state_of(scene.model) == before
    assert SIZE == (8, 12)
