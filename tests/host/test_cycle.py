"""CycleDiffusion Invert, and what samples along its trajectory: round trips, noise merging, regions, refusals."""

from __future__ import annotations

import comfy.model_management
import pytest
import reference
import steps
import tiny
import torch
from comfy_extras.nodes_custom_sampler import DisableNoise, KSamplerSelect, SamplerCustomAdvanced
from probes import Ending, counting, state_of

SETTINGS = {
    "steps": 12, "skip": 2, "eta": 0.3, "formula": "DDIM", "cfg": 1.0, "seed": 5, "reconstruct": False,
}  # fmt: skip


def invert(pack, model, latent, source, **changes):
    """(trajectory, x_T, reconstruction)."""
    node = pack.pipeline.cycle_invert.CycleDiffusionInvert
    return node.execute(model=model, latent=latent, source=source, **{**SETTINGS, **changes}).args


def sample(pack, model, features, positive, negative, **settings):
    """(samples, words) of the Injected LoRA Sampler with nothing set that a trajectory does not need."""
    node = pack.pipeline.sampler.InjectedLoRASampler
    given = {"cfg": 1.0, "preset": {"preset": "paper 2026"}, **steps.INJECTION, **settings}
    out = node.execute(model=model, features=features, positive=positive, negative=negative, **given)
    return out.args[0]["samples"], "\n".join(out.ui["text"])


def guided(pack, model, features, positive, negative, x_T, sampler="euler", sigmas=None, **settings):
    """(output, denoised) of SamplerCustomAdvanced with the Injected LoRA Guider."""
    given = {"cfg": 1.0, "preset": {"preset": "paper 2026"}, **steps.INJECTION, **settings}
    node = pack.pipeline.guider.InjectedLoRAGuider
    guider, own = node.execute(model=model, features=features, positive=positive, negative=negative, **given).args
    levels = own if sigmas is None else sigmas(own)
    out = SamplerCustomAdvanced.execute(
        DisableNoise.execute().args[0], guider, KSamplerSelect.execute(sampler).args[0], levels, x_T
    )
    return tuple(value["samples"] for value in out.args)


def relative(ours, theirs) -> float:
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


class Scene:
    """A small model with damped weights, one content, prompts."""

    def __init__(self, pack, seed, kind="small", velocity=False, size=8):
        self.pack, self.seed = pack, seed
        self.unet, self.model = reference.pair(kind, seed, velocity)
        self.latent = tiny.make_latent(seed, size)
        self.source, self.positive, self.negative, self.other = (tiny.make_prompt(seed + i) for i in range(4))

    def invert(self, **changes):
        return invert(self.pack, self.model, self.latent, self.source, **changes)

    def sample(self, features, **settings):
        return sample(self.pack, self.model, features, self.positive, self.negative, **settings)

    @property
    def content(self):
        return self.latent["samples"]


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


@pytest.mark.parametrize(
    ("kind", "velocity", "formula", "eta"),
    [("sd15", False, "DDIM", 0.3), ("sd21", True, "dual-style", 0.015), ("sd21", False, "DDIM", 1.0)],
)
def test_the_same_prompt_gives_the_content_back(pack, seed, measured, kind, velocity, formula, eta):
    scene = Scene(pack, seed, kind, velocity)
    model, rows = counting(scene.model)
    settings = {**SETTINGS, "formula": formula, "eta": eta, "reconstruct": True}
    trajectory, x_T, back = invert(pack, model, scene.latent, scene.source, **settings)
    assert rows == [1] * 20, "steps - skip, there and back"
    sampled, _ = sample(pack, scene.model, trajectory, scene.source, scene.negative)
    guider, _ = guided(pack, scene.model, trajectory, scene.source, scene.negative, x_T)
    measured("the node's reconstruction, relative", relative(back["samples"], scene.content), at_most=1e-4)
    measured("through the sampler, relative", relative(sampled, scene.content), at_most=1e-4)
    measured("through the guider, relative", relative(guider, scene.content), at_most=1e-4)


def test_sdxl_comes_back(pack, seed, measured):
    model, latent, source = (
        tiny.make_model("sdxl", seed=seed),
        tiny.make_latent(seed, 8),
        tiny.make_prompt(1, sdxl=True),
    )
    trajectory, _, back = invert(pack, model, latent, source, steps=4, skip=1, reconstruct=True)
    measured("reconstruction, relative", relative(back["samples"], latent["samples"]), at_most=1e-4)
    sampled, _ = sample(pack, model, trajectory, source, source)
    measured("through the sampler, relative", relative(sampled, latent["samples"]), at_most=1e-4)


def test_guidance_while_encoding_comes_back_with_the_same_guidance(scene, measured):
    model, rows = counting(scene.model)
    settings = {**SETTINGS, "cfg": 3.0, "reconstruct": True, "negative": scene.negative}
    trajectory, _, back = invert(scene.pack, model, scene.latent, scene.source, **settings)
    assert rows == [2] * 20
    sampled, _ = sample(scene.pack, scene.model, trajectory, scene.source, scene.negative, cfg=3.0)
    measured("reconstruction, relative", relative(back["samples"], scene.content), at_most=1e-4)
    measured("through the sampler, relative", relative(sampled, scene.content), at_most=1e-4)
    plain, *_ = scene.invert()
    assert not torch.equal(plain.noises.tensors[0], trajectory.noises.tensors[0])


def merged(scene, trajectory, prompts, shares, negative, cfg):
    """Noise merging written out on diffusers' UNet in float64: guidance of each, merged, one stochastic DDIM step."""
    unet, noises = reference.in_float64(scene.unet), trajectory.noises
    abar, timesteps = reference.cumulative_alphas(), trajectory.schedule.timesteps
    z = trajectory.noise.double()
    for i, t in enumerate(timesteps):
        a, b = abar[t], abar[timesteps[i + 1]] if i + 1 < len(timesteps) else abar[0]
        ask = lambda prompt, z=z, t=t: unet(z, t, encoder_hidden_states=prompt[0][0].double()).sample  # noqa: E731
        without = ask(negative)
        eps = sum(m.double() * (without + cfg * (ask(p) - without)) for p, m in zip(prompts, shares, strict=True))
        ratio = (1 - a) / (1 - b) if noises.formula == "dual-style" else (1 - b) / (1 - a)
        sigma = noises.eta * ratio**0.5 * (1 - a / b) ** 0.5
        x0 = (z - (1 - a) ** 0.5 * eps) / a**0.5
        z = b**0.5 * x0 + (1 - b - sigma**2) ** 0.5 * eps + sigma * noises.tensors[i].double()
    return z


@pytest.mark.parametrize(
    ("profile", "sharpness", "angle", "formula", "eta"),
    [
        ("linear", 1.0, 0.0, "DDIM", 0.5),
        ("logistic", 20.0, 90.0, "DDIM", 0.1),
        ("logistic", 70.0, 30.0, "dual-style", 0.015),
    ],
)
def test_two_styles_are_noise_merging_written_out(scene, measured, profile, sharpness, angle, formula, eta):
    trajectory, x_T, _ = scene.invert(formula=formula, eta=eta)
    ramp = scene.pack.masks.ramp.SpatialRampMask.execute(64, 64, profile, sharpness, angle, 0.5, 0.5).args
    prompts = [scene.positive, scene.other]
    styles = steps.chain(scene.pack, *({"positive": p, "mask": m} for p, m in zip(prompts, ramp, strict=True)))
    shares = [m[0].reshape(8, 8, 8, 8).mean((1, 3)) for m in ramp]
    theirs = merged(scene, trajectory, prompts, shares, scene.negative, 20.0)
    ours, words = scene.sample(trajectory, styles=styles, cfg=20.0)
    ours = scene.model.model.process_latent_in(ours)
    measured("sampler against the loop on diffusers' UNet, relative", relative(ours, theirs), at_most=1e-4)
    guider, _ = guided(
        scene.pack, scene.model, trajectory, scene.positive, scene.negative, x_T, styles=styles, cfg=20.0
    )
    guider = scene.model.model.process_latent_in(guider)
    measured("guider against the loop on diffusers' UNet, relative", relative(guider, theirs), at_most=1e-4)
    assert "nothing injected" in words
    assert "each step adds the content's own noise, eta" in words


def test_three_styles_of_which_one_takes_the_rest(scene, measured):
    trajectory, *_ = scene.invert()
    masks = [torch.rand(1, 8, 8) * 0.5 for _ in range(2)]
    prompts = [scene.positive, scene.other, scene.source]
    styles = steps.chain(
        scene.pack, *({"positive": p, "mask": m} for p, m in zip(prompts, [*masks, None], strict=True))
    )
    shares = [masks[0][0], masks[1][0], 1 - masks[0][0] - masks[1][0]]
    theirs = merged(scene, trajectory, prompts, shares, scene.negative, 4.0)
    ours, _ = scene.sample(trajectory, styles=styles, cfg=4.0)
    measured("three styles, relative", relative(scene.model.model.process_latent_in(ours), theirs), at_most=1e-4)


def test_outside_the_styles_the_latent_is_the_content_bit_for_bit(scene, measured):
    trajectory, x_T, _ = scene.invert()
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 1:5] = 1.0
    mask[:, 2:6, 5] = 0.4
    styles = steps.chain(scene.pack, {"positive": scene.positive, "mask": mask})
    out, _ = scene.sample(trajectory, styles=styles, cfg=3.0)
    guider, _ = guided(scene.pack, scene.model, trajectory, scene.positive, scene.negative, x_T, styles=styles, cfg=3.0)
    outside = mask[0] == 0
    kept = scene.model.model.process_latent_out(trajectory.content)
    for samples in (out, guider):
        assert torch.equal(samples[..., outside], kept[..., outside])
        assert (samples - scene.content)[..., ~outside].abs().max() > 1e-2
    measured("guider against sampler with soft edges, relative", relative(guider, out), at_most=1e-4)
    same, _ = scene.sample(trajectory, styles=steps.chain(scene.pack, {"positive": scene.source, "mask": mask}))
    measured("the source prompt inside gives the content back", relative(same, scene.content), at_most=1e-4)


@pytest.mark.parametrize("storage", ["memory", "disk", "recompute"])
def test_a_capture_along_it_is_injected(scene, storage):
    trajectory, *_ = scene.invert()
    features = steps.capture(
        scene.pack, scene.model, trajectory, scene.source, storage=storage, feature_steps=10, attention_steps=10
    )
    ours, words = scene.sample(features, cfg=3.0)
    free, _ = scene.sample(trajectory, cfg=3.0)
    assert (ours - free).abs().max() > 1e-3
    assert "6 and 5 of 10 steps, T_a = 417" in words  # of the 833 timesteps that are left of 1000
    back, _ = sample(scene.pack, scene.model, features, scene.source, scene.negative)
    assert relative(back, scene.content) < 1e-3


def test_adaptive_attention_begins_where_its_window_ends(scene):
    """Of a run that skips: kappa rises from about 0, not from where the whole run's threshold lies."""
    trajectory, *_ = scene.invert(steps=50, skip=10)
    settings = scene.pack.core.injection.settings.InjectionSettings(0.5, 0.5)
    plan = settings.plan(40, (), (), trajectory.schedule.span)
    kappas = [plan.kappa(i, t) for i, t in enumerate(trajectory.schedule.timesteps)]
    assert kappas[:20] == [0.0] * 20
    assert 0.0 < kappas[20] < 0.06
    assert kappas[-1] > 0.99


def test_a_seed_is_a_variant_and_a_second_run_the_same(scene):
    before = state_of(scene.model)
    first, again, other = (scene.invert(seed=s)[0] for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.noises.tensors, again.noises.tensors, strict=True))
    assert not torch.equal(first.noise, other.noise)
    assert torch.equal(scene.sample(first, cfg=4.0)[0], scene.sample(again, cfg=4.0)[0])
    assert not torch.equal(scene.sample(first, cfg=4.0)[0], scene.sample(other, cfg=4.0)[0])
    assert state_of(scene.model) == before


def test_a_plain_trajectory_without_a_capture_is_ddim(scene, measured):
    trajectory, *_ = steps.invert(scene.pack, scene.model, scene.latent, scene.source, steps=10)
    ours, words = scene.sample(trajectory, cfg=4.0)
    z, positive, negative = trajectory.noise, scene.positive[0][0], scene.negative[0][0]
    theirs = reference.sampled(scene.unet, z, positive, negative, 4.0, 10)
    measured("relative", relative(scene.model.model.process_latent_in(ours), theirs), at_most=1e-4)
    assert "nothing injected: features is a trajectory without a capture, so that preset has no effect" in words
    assert "adds" not in words
    guided(scene.pack, scene.model, trajectory, scene.positive, scene.negative,
           {"samples": torch.zeros(1, 4, 8, 8)}, "heun")  # fmt: skip


def test_a_style_may_bring_its_own_features(scene):
    trajectory, *_ = scene.invert()
    features = steps.capture(scene.pack, scene.model, trajectory, scene.source, feature_steps=10, attention_steps=10)
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    own = steps.chain(scene.pack, {"positive": scene.positive, "mask": left, "features": features},
                      {"positive": scene.positive, "mask": 1 - left})  # fmt: skip
    bare = tuple(style._replace(features=None) for style in own)
    ours, words = scene.sample(trajectory, styles=own, cfg=3.0)
    assert "style 2: 50.0 % of the picture, base model, nothing injected" in words
    assert (ours - scene.sample(trajectory, styles=bare, cfg=3.0)[0]).abs().max() > 1e-3


def test_the_guider_previews_the_models_own_picture(scene, monkeypatch):
    """The answers carry the next step's noise; what is shown does not."""
    trajectory, x_T, _ = scene.invert(eta=1.0)
    _, shown = guided(scene.pack, scene.model, trajectory, scene.source, scene.negative, x_T)
    path, ddim = [], scene.pack.core.diffusion.ddim
    original, prompts = ddim.step_down, scene.pack.host.sampling.cycle.SourcePrompts(scene.source)
    monkeypatch.setattr(ddim, "step_down", lambda *a: (path.append(original(*a)), path[-1])[1])
    scene.pack.host.sampling.cycle.decode_latent(scene.model, x_T["samples"], prompts, trajectory)
    x0 = scene.model.model.process_latent_out(path[-1][1])
    assert relative(shown, x0) < 2e-3  # divided by sqrt(1 + sigma_0^2) or not


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "lcm"])
def test_a_sampler_that_would_go_elsewhere_is_refused(scene, sampler):
    trajectory, x_T, _ = scene.invert()
    model, rows = counting(scene.model)
    with pytest.raises(ValueError, match=r"sampler: the trajectory is CycleDiffusion's.*Choose euler or ddim"):
        guided(scene.pack, model, trajectory, scene.positive, scene.negative, x_T, sampler)
    assert rows == []


@pytest.mark.parametrize(
    "levels", [lambda own: own[::2], lambda own: torch.cat([own[:-1], torch.zeros(1)]), lambda own: own * 1.01]
)
def test_other_noise_levels_are_refused(scene, levels):
    trajectory, x_T, _ = scene.invert()
    model, rows = counting(scene.model)
    with pytest.raises(ValueError, match=r"sigmas: the trajectory is CycleDiffusion's"):
        guided(scene.pack, model, trajectory, scene.positive, scene.negative, x_T, sigmas=levels)
    assert rows == []


def test_split_sigmas_continue_where_they_stopped(scene, measured):
    trajectory, x_T, _ = scene.invert()
    run = lambda start, part: guided(  # noqa: E731
        scene.pack, scene.model, trajectory, scene.positive, scene.negative, start, sigmas=part, cfg=3.0
    )[0]
    whole = run(x_T, lambda own: own)
    middle = run(x_T, lambda own: own[:5])
    end = run({"samples": middle}, lambda own: own[4:])
    measured("two parts against one run, relative", relative(end, whole), at_most=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": 0.0}, r"eta must be a number above 0, .*DDIM Invert"),
        ({"eta": float("nan")}, "eta must be a number above 0"),
        (
            {"eta": 0.3, "formula": "dual-style"},
            r"eta: 0.3 adds more noise at step .* goes up to 0.0\d+.*formula 'DDIM'",
        ),
        ({"formula": "x"}, "formula must be one of dual-style, DDIM"),
        ({"skip": 12}, r"skip must lie in 0\.\.11"),
        ({"steps": 1000}, r"steps must lie in 1\.\.999"),
        ({"cfg": 3.0}, "negative: guidance of 3 needs a prompt"),
        ({"cfg": float("inf")}, "cfg must be a number in 0..100"),
        ({"seed": -1}, "seed must be a number"),
        ({"latent": tiny.make_latent(batch=2, size=8)}, "latent: one content is expected, got a batch of 2"),
        ({"latent": {"samples": torch.full((1, 4, 8, 8), float("nan"))}}, "latent holds values that are not finite"),
        ({"source": []}, "source: one prompt is expected"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(scene, changes, message):
    model, rows = counting(scene.model)
    with pytest.raises(ValueError, match=message):
        invert(scene.pack, model, **{"latent": scene.latent, "source": scene.source, **changes})
    assert rows == []


def test_injection_without_features_is_refused(scene):
    trajectory, *_ = scene.invert()
    settings = steps.injection(scene.pack)
    with pytest.raises(ValueError, match=r"^injection: it was wired, but features is a TRAJECTORY"):
        scene.sample(trajectory, injection=settings)
    styles = steps.chain(scene.pack, {"positive": scene.positive, "injection": settings, "name": "ink"})
    with pytest.raises(ValueError, match=r"injection of style 1 'ink': .*Wire Capture Features/Attention"):
        scene.sample(trajectory, styles=styles)


@pytest.mark.parametrize(
    ("how", "error"),
    [("error", RuntimeError), ("interrupt", comfy.model_management.InterruptProcessingException)],
)
def test_an_end_before_the_end_leaves_nothing(scene, monkeypatch, how, error):
    before, ending = state_of(scene.model), Ending(monkeypatch)
    ending.plan(how, 4)
    with pytest.raises(error):
        scene.invert()
    assert len(ending.rows) == 4
    assert state_of(scene.model) == before
