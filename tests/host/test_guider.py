"""The Injected LoRA Guider in the host's own SamplerCustomAdvanced."""

from __future__ import annotations

import comfy.samplers
import pytest
import steps
import torch
from comfy_extras.nodes_custom_sampler import DisableNoise, KSamplerSelect, RandomNoise, SamplerCustomAdvanced
from probes import counting, state_of
from test_regions import SIZE, Scene, cells

LEFT = torch.zeros(SIZE)
LEFT[:, :6] = 1.0
SOFT = LEFT.clone()
SOFT[:, 4:8] = torch.tensor([0.8, 0.6, 0.4, 0.2])


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


def run(scene, sampler="euler", model=None, noise=None, sigmas=None, latent=None, **settings):
    """(output, denoised) of SamplerCustomAdvanced."""
    made = steps.guider(scene.pack, model or scene.model, scene.features, scene.positive, scene.negative, **settings)
    return custom(scene, *made, sampler, noise, sigmas, latent)


def custom(scene, guider, own_sigmas, sampler="euler", noise=None, sigmas=None, latent=None):
    noise = noise or DisableNoise.execute().args[0]
    chosen = KSamplerSelect.execute(sampler).args[0]
    sigmas = own_sigmas if sigmas is None else sigmas
    out = SamplerCustomAdvanced.execute(noise, guider, chosen, sigmas, latent or scene.x_T)
    return tuple(value["samples"] for value in out.args)


def scale(scene):
    return scene.model.model.process_latent_in(torch.ones(1)).item()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"styles": "hard"},
        {"styles": "soft"},
        {"styles": "hard", "outside": "regenerate"},
        {"styles": "soft", "outside": "regenerate"},
    ],
    ids=["plain", "hard, content", "soft, content", "hard, regenerate", "soft, regenerate"],
)
def test_with_euler_it_is_the_injected_lora_sampler(scene, measured, settings):
    masks = {"hard": LEFT, "soft": SOFT}
    if "styles" in settings:
        settings = {**settings, "styles": scene.styles(cells(masks[settings["styles"]]))}
    ours, _ = run(scene, **settings)
    theirs = scene.sample(**settings)
    top = theirs.abs().max().item()
    measured("SamplerCustomAdvanced against the sampler node, relative", (ours - theirs).abs().max().item() / top, 2e-5)


@pytest.mark.parametrize(
    "sampler", ["euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "lcm", "ddim", "uni_pc"]
)
def test_any_sampler_keeps_the_content_outside(scene, sampler):
    noise = RandomNoise.execute(scene.seed).args[0]
    guider, sigmas = steps.guider(
        scene.pack, scene.model, scene.features, scene.positive, scene.negative, styles=scene.styles(cells(LEFT))
    )
    clean = torch.cat([sigmas[:-1], torch.zeros(1)])
    empty = {"samples": torch.zeros_like(scene.x_T["samples"])}
    for start, levels in ((noise, clean), (None, sigmas)):
        latent = empty if start else scene.x_T
        out, _ = custom(scene, guider, sigmas, sampler, start, levels, latent)
        assert torch.equal(out[..., LEFT == 0], scene.content[..., LEFT == 0])
        assert torch.isfinite(out).all()
        assert (out - scene.content)[..., LEFT == 1].abs().max() > 1e-3


def test_split_sigmas_continue_where_they_stopped(scene, measured):
    guider, sigmas = steps.guider(
        scene.pack, scene.model, scene.features, scene.positive, scene.negative, styles=scene.styles(cells(LEFT))
    )
    whole, _ = custom(scene, guider, sigmas)
    middle, _ = custom(scene, guider, sigmas, sigmas=sigmas[:3])
    end, _ = custom(scene, guider, sigmas, sigmas=sigmas[2:], latent={"samples": middle})
    measured("two parts against one run", (end - whole).abs().max().item() * scale(scene), at_most=1e-4)
    outside = scene.model.model.process_latent_in(middle)[..., LEFT == 0]
    path = scene.trajectory.exploding_at(float(sigmas[2]))[..., LEFT == 0]
    torch.testing.assert_close(outside, path, rtol=0, atol=1e-5)


def test_a_guider_may_be_used_again(scene):
    guider, sigmas = steps.guider(
        scene.pack, scene.model, scene.features, scene.positive, scene.negative, lora=scene.loras[0]
    )
    before = state_of(scene.model)
    first, _ = custom(scene, guider, sigmas)
    custom(scene, guider, sigmas, "heun")
    assert torch.equal(custom(scene, guider, sigmas)[0], first)
    assert state_of(scene.model) == before


def test_nothing_covered_costs_nothing(scene):
    model, rows = counting(scene.model)
    out, denoised = run(scene, model=model, styles=scene.styles(torch.zeros(1, 64, 96)))
    assert rows == []
    assert torch.equal(out, scene.content)
    torch.testing.assert_close(denoised, scene.content)


def test_a_latent_of_another_size_is_refused(scene):
    model, rows = counting(scene.model)
    with pytest.raises(ValueError, match=r"latent_image: \[1, 4, 8, 8\] does not fit .*x_T of DDIM Invert"):
        run(scene, model=model, latent={"samples": torch.zeros(1, 4, 8, 8)})
    assert rows == []


def test_recompute_is_not_kept_between_runs(pack, seed):
    scene = Scene(pack, seed)
    model, rows = counting(scene.model)
    scene.features = steps.capture(pack, model, scene.trajectory, scene.empty, storage="recompute")
    guider, sigmas = steps.guider(scene.pack, model, scene.features, scene.positive, scene.negative)
    first, _ = custom(scene, guider, sigmas)
    assert rows == [1, 2] * 4
    again, _ = custom(scene, guider, sigmas, sigmas=sigmas[3:])
    assert rows == [1, 2] * 5
    assert first.shape == again.shape


def test_controls_of_the_host_still_act(scene):
    """A RescaleCFG-like function of another pack sees the fused prediction."""
    clone = scene.model.clone()
    clone.set_model_sampler_cfg_function(lambda args: args["uncond"])
    ours, _ = run(scene, model=clone, styles=scene.styles(cells(LEFT)))
    theirs, _ = run(scene, cfg=0.0, styles=scene.styles(cells(LEFT)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert isinstance(
        steps.guider(scene.pack, clone, scene.features, scene.positive, scene.negative)[0], comfy.samplers.CFGGuider
    )


@pytest.mark.parametrize("preset", ["paper 2026", "paper 2024", "keep more content", "take more style"])
def test_a_preset_is_its_values(scene, preset):
    chosen = scene.pack.core.injection.settings.PRESETS[preset]
    plan = chosen.plan(4, (), ())
    windows = {"feature_steps": plan.feature_steps, "attention_steps": plan.attention_steps}
    theirs = scene.sample(lora=scene.loras[0], **windows, attention_mode=plan.mode, blend=plan.blend)
    assert torch.equal(scene.sample(lora=scene.loras[0], preset=preset), theirs)
    node = scene.pack.pipeline.sampler.InjectedLoRASampler
    out = node.execute(
        model=scene.model, features=scene.features, positive=scene.positive, negative=scene.negative, cfg=1.0,
        preset={"preset": preset}, **steps.INJECTION,
    )  # fmt: skip
    assert f"preset {preset}: {chosen}" in "\n".join(out.ui["text"])
