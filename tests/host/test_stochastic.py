"""Stochastic Inversion: against diffusers' UNet and DDIM with the same weights, and what it refuses."""

from __future__ import annotations

import math

import comfy.samplers
import diffusers
import pytest
import reference
import tiny
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom
from probes import counting, state_of

STEPS, STRENGTH = 10, 0.75  # 7 of 10 steps: from t = 601


def invert(pack, model, latent, style, **changes):
    settings = {"strength": STRENGTH, "steps": STEPS, "seed": 5, **changes}
    return pack.pipeline.stochastic.StochasticInversion.execute(model=model, latent=latent, style=style, **settings)


def ddim(velocity: bool):
    made = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        steps_offset=1, timestep_spacing="leading", prediction_type="v_prediction" if velocity else "epsilon",
    )  # fmt: skip
    made.set_timesteps(STEPS)
    return made


def written_out(unet, z0, noise, prompt, velocity):
    """(z_t, the picture that diffusers' DDIM goes on to from there), in the UNet's scale."""
    scheduler = ddim(velocity)
    timesteps = scheduler.timesteps[-7:]
    a = scheduler.alphas_cumprod[timesteps[0]]
    noisy = scheduler.add_noise(z0, noise, timesteps[:1].repeat(len(z0)))
    context = prompt.expand(len(z0), -1, -1)
    output = unet(noisy, timesteps[0], encoder_hidden_states=context).sample
    eps = a.sqrt() * output + (1 - a).sqrt() * noisy if velocity else output
    start = z = a.sqrt() * z0 + (1 - a).sqrt() * eps
    for t in timesteps:
        z = scheduler.step(unet(z, t, encoder_hidden_states=context).sample, t, z).prev_sample
    return start, z, 1 / a.sqrt()


@pytest.mark.parametrize(
    ("kind", "velocity", "batch", "sampler"),
    [("small", False, 1, "ddim"), ("sd15", False, 2, "euler"), ("sd21", True, 1, "euler"), ("small", True, 3, "ddim")],
)
def test_it_is_diffusers_and_stock_samplers_go_on(pack, seed, measured, kind, velocity, batch, sampler):
    unet, model = reference.pair(kind, seed, velocity)
    latent, style = tiny.make_latent(seed, batch=batch), tiny.make_prompt(seed + 1)
    counted, rows = counting(model)
    before = state_of(model)
    started, sigmas = invert(pack, counted, latent, style).result
    assert rows == [batch], "one evaluation"
    z0 = model.model.process_latent_in(latent["samples"])
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(5))
    start, picture, scale = written_out(unet, z0, noise, style[0][0], velocity)
    ours = model.model.process_latent_in(started["samples"])
    worst = (ours / scale - start).abs().max().item() / start.abs().max().item()
    measured("start against a written-out loop, relative", worst, at_most=1e-5)
    expected = [((1 - a) / a) ** 0.5 for a in ddim(velocity).alphas_cumprod.double()[ddim(velocity).timesteps[-7:]]]
    assert sigmas.tolist() == pytest.approx([*map(float, expected), 0.0], rel=1e-5)
    chosen = comfy.samplers.sampler_object(sampler)
    out = SamplerCustom.execute(model, False, 0, 1.0, style, style, chosen, sigmas, started).result[0]
    ours = model.model.process_latent_in(out["samples"])
    worst = (ours - picture).abs().max().item() / picture.abs().max().item()
    measured(f"{sampler} from there against diffusers' DDIM, relative", worst, at_most=1e-4)
    assert state_of(model) == before


def test_each_picture_of_a_batch_has_its_noise_and_none_is_the_others(pack, seed):
    model, style = tiny.make_model("small"), tiny.make_prompt(seed)
    pair = tiny.make_latent(seed, batch=2)["samples"]
    both = invert(pack, model, {"samples": pair}, style).result[0]["samples"]
    single = [
        invert(pack, model, {"samples": pair[i : i + 1], "batch_index": [i]}, style).result[0]["samples"]
        for i in range(2)
    ]
    assert (torch.cat(single) - both).abs().max() < 1e-4
    alike = invert(pack, model, {"samples": pair[:1].repeat(2, 1, 1, 1)}, style).result[0]["samples"]
    assert not torch.allclose(alike[0], alike[1], atol=1e-2)


def test_the_style_latents_statistics_are_taken_first(pack, seed, measured):
    model, prompt = tiny.make_model("small"), tiny.make_prompt(seed)
    content, style = tiny.make_latent(seed)["samples"], 3.0 * tiny.make_latent(seed + 1, size=12)["samples"] + 1.0
    ours = invert(pack, model, {"samples": content}, prompt, style_latent={"samples": style}).result[0]["samples"]
    scale = model.model.process_latent_in(torch.ones(1)).double()
    c, s = content.double().flatten(2) * scale, style.double().flatten(2) * scale

    def deviation(x):
        return (x.var(dim=2, keepdim=True) + 1e-5).sqrt()

    mixed = (c - c.mean(2, True)) / deviation(c) * deviation(s) + s.mean(2, True)
    mixed = (mixed / scale).unflatten(2, content.shape[2:]).float()
    theirs = invert(pack, model, {"samples": mixed}, prompt).result[0]["samples"]
    measured("AdaIN against float64", ((ours - theirs).abs().max() / theirs.abs().max()).item(), at_most=1e-5)


def test_a_second_run_is_the_same_and_another_seed_or_strength_is_not(pack):
    model, latent, style = tiny.make_model("small"), tiny.make_latent(), tiny.make_prompt(1)
    given = latent["samples"].clone()
    first, again = (invert(pack, model, latent, style).result[0]["samples"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(latent["samples"], given)
    others = [invert(pack, model, latent, style, **c).result[0]["samples"] for c in ({"seed": 6}, {"strength": 0.5})]
    assert not any(torch.allclose(first, other, atol=1e-2) for other in others)


def test_sdxl(pack):
    out = invert(pack, tiny.make_model("sdxl"), tiny.make_latent(), tiny.make_prompt(1, sdxl=True)).result[0]
    assert torch.isfinite(out["samples"]).all()


def test_a_mask_is_said_not_to_be_used(pack):
    latent = {**tiny.make_latent(), "noise_mask": torch.ones(1, 1, 16, 16)}
    out = invert(pack, tiny.make_model("small"), latent, tiny.make_prompt(1))
    assert "noise mask is not used" in out.ui["text"][0]
    assert set(out.result[0]) == {"samples"}
    assert "7 of 10 steps" in out.ui["text"][0]
    assert "t = 601" in out.ui["text"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strength": 0.05}, "strength.*0.1 or more"),
        ({"strength": 0.0}, "strength must lie above 0"),
        ({"strength": math.nan}, "strength.*nan"),
        ({"steps": 0}, "steps must lie in"),
        ({"latent": {"samples": torch.zeros(1, 3, 16, 16)}}, r"latent: .*\[B, 4, H, W\]"),
        ({"latent": {"samples": torch.zeros(0, 4, 16, 16)}}, "latent: a picture is expected"),
        ({"latent": {"samples": torch.full((1, 4, 16, 16), math.nan)}}, "latent.*not finite"),
        ({"style": tiny.make_prompt(1) * 2}, "style: one prompt"),
        ({"style_latent": tiny.make_latent(batch=2)}, "style_latent: one content"),
    ],
)
def test_refused_before_any_evaluation(pack, changes, words):
    model, rows = counting(tiny.make_model("small"))
    wires = {"latent": tiny.make_latent(), "style": tiny.make_prompt(1), **changes}
    with pytest.raises(ValueError, match=words):
        invert(pack, model, **wires)
    assert not rows
