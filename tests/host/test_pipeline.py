"""All four nodes one after the other, on every kind of Stable Diffusion UNet."""

from __future__ import annotations

import pytest
import steps
import tiny
import torch

KINDS = {
    "sd15": ({}, {"feature_layers": "4", "self_attention_layers": "4-11"}),
    "sd21": ({"velocity": True}, {"feature_layers": "4-11", "self_attention_layers": "4-11"}),
    "sdxl": ({}, {"feature_layers": "2,4", "self_attention_layers": "0-5", "cross_attention_layers": "3"}),
}


def last_transformer_blocks(request) -> set[tuple[int, int]]:
    return {(site.layer, site.depth) for site in request.attention_sites}


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_pipeline(pack, seed, kind):
    options, layers = KINDS[kind]
    model, vae = tiny.make_model(kind, seed=seed, **options), tiny.make_vae()
    empty, prompt = (tiny.make_prompt(seed + i, sdxl=kind == "sdxl") for i in range(2))
    content, style = (torch.rand(1, 64, 64, 3) for _ in range(2))
    lora, losses, name = steps.train(pack, model, vae, style, prompt)
    latent = {"samples": vae.encode(content)}
    trajectory, x_T, back = steps.invert(pack, model, latent, empty, reconstruct=True)
    features = steps.capture(pack, model, trajectory, empty, **layers)
    if kind == "sdxl":
        assert last_transformer_blocks(features.request) == {(i, d) for i in range(6) for d in range(2 if i < 3 else 1)}
    samples = steps.sample(pack, model, features, prompt, empty, lora=lora)
    assert len(losses["loss"]) == 2
    assert name.startswith("DiffStyler/test_")
    for tensor in (samples, x_T["samples"], back["samples"]):
        assert tensor.shape == latent["samples"].shape
        assert torch.isfinite(tensor).all()
    without = steps.sample(pack, model, features, prompt, empty)
    free = steps.sample(pack, model, features, prompt, empty, lora=lora, feature_steps=0, attention_steps=0)
    named = steps.sample(pack, model, features, prompt, empty, lora_name=name)
    again = steps.sample(pack, model, features, prompt, empty, lora=lora, start_latent=x_T)
    assert not torch.equal(samples, without)
    assert not torch.equal(samples, free)
    assert torch.equal(samples, named)
    assert (samples - again).abs().max() / samples.abs().max() < 1e-5, "x_T is where the sampler starts by itself"
    assert vae.decode(samples).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [
        ("sdxl", {"self_attention_layers": "4-11"}, "self-attention layers 6-11 do not exist .* layers 0-5"),
        ("sdxl", {"feature_layers": "9"}, "feature layers 9 do not exist .* layers 0-8"),
        ("sd15", {"self_attention_layers": "0-11"}, "self-attention layers 0-2 do not exist .* layers 3-11"),
        ("sd21", {"feature_layers": "12"}, "feature layers 12 do not exist .* layers 0-11"),
        ("sd21", {"cross_attention_layers": "2"}, "cross-attention layers 2 do not exist .* layers 3-11"),
    ],
)
def test_layers_that_do_not_exist_are_named_with_those_that_do(pack, kind, layers, message):
    model, prompt = tiny.make_model(kind), tiny.make_prompt(1)
    schedule = pack.host.model.schedule_of(model, 4)
    latents = (torch.zeros(1, 4, 8, 8),) * 5
    trajectory = pack.core.diffusion.trajectory.Trajectory(latents, schedule, pack.host.model.family_of(model))
    wanted = {"feature_layers": "", "self_attention_layers": "", **layers}
    with pytest.raises(ValueError, match=message):
        steps.capture(pack, model, trajectory, prompt, **wanted)


@pytest.mark.parametrize("height", [8, 12])
def test_pictures_need_not_be_square(pack, seed, height):
    model, prompt = tiny.make_model("small", seed=seed), tiny.make_prompt(seed)
    latent = {"samples": torch.randn(1, 4, height, 16)}
    trajectory, *_ = steps.invert(pack, model, latent, prompt)
    features = steps.capture(pack, model, trajectory, prompt)
    assert steps.sample(pack, model, features, prompt, prompt).shape == (1, 4, height, 16)


def test_the_same_queue_gives_the_same_picture(pack, seed):
    model, prompt, latent = tiny.make_model("small", seed=seed), tiny.make_prompt(seed), tiny.make_latent(seed, 8)

    def run():
        trajectory, *_ = steps.invert(pack, model, latent, prompt)
        return steps.sample(pack, model, steps.capture(pack, model, trajectory, prompt), prompt, prompt)

    assert torch.equal(run(), run())
