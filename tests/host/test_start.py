"""A run that is given x_T begins on the content's path, at the first noise level of whatever scheduler."""

from __future__ import annotations

import apply_bench as bench
import comfy.samplers
import pytest
import steps
import tiny
import torch

FEWER = (7.0, 2.0, 0.0)
MORE = (15.0, 9.0, 3.0, 0.0)


@pytest.fixture
def scene(pack, seed):
    model = tiny.make_model("small", seed=seed)
    prompts = [tiny.make_prompt(seed + i) for i in range(3)]
    trajectory, x_T, _ = steps.invert(pack, model, tiny.make_latent(seed, 8), prompts[0])
    features = steps.capture(pack, model, trajectory, prompts[0])
    return model, trajectory, x_T["samples"], features, prompts[1:]


def gap(ours, theirs) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def run(guider, sigmas, latent, noise=None):
    noise = torch.zeros_like(latent) if noise is None else noise
    return guider.sample(noise, latent, comfy.samplers.ksampler("euler"), torch.tensor(sigmas), disable_pbar=True)


def applied(pack, scene):
    model, _, _, features, prompts = scene
    guider = comfy.samplers.CFGGuider(bench.injected(pack, model, features))
    guider.set_conds(*prompts)
    guider.set_cfg(3.0)
    return guider


def guided(pack, scene):
    model, _, _, features, (positive, negative) = scene
    return steps.guider(pack, model, features, positive, negative)[0]


GUIDERS = pytest.mark.parametrize("made", [applied, guided], ids=["Apply Injection", "Injected LoRA Guider"])


def path_at(model, trajectory, sigma):
    """The content's path at a noise level, as a LATENT's samples: straight in (sigma, x), z held above x_T's level."""
    own = [float(s) for s in bench.own_levels(trajectory)]
    z = trajectory.latents
    if sigma >= own[0]:
        return model.model.process_latent_out(z[0] * (1 + sigma**2) ** 0.5)
    right = next(i for i, s in enumerate(own) if s <= sigma)
    a, b = (z[i] * (1 + own[i] ** 2) ** 0.5 for i in (right - 1, right))
    return model.model.process_latent_out(b + (sigma - own[right]) / (own[right - 1] - own[right]) * (a - b))


@GUIDERS
@pytest.mark.parametrize("sigmas", [FEWER, MORE])
def test_x_T_begins_at_the_runs_own_level(pack, scene, measured, made, sigmas):
    model, trajectory, x_T, *_ = scene
    ours = run(made(pack, scene), sigmas, x_T)
    start = path_at(model, trajectory, sigmas[0])
    theirs = run(made(pack, scene), sigmas, start)
    assert gap(start, x_T) > 0.01, "else the test shows nothing"
    measured("x_T against the path's latent, relative", gap(ours, theirs), at_most=1e-5)


@GUIDERS
def test_every_other_start_is_left_alone(pack, scene, made):
    """A changed x_T, a batch of which one is changed, and x_T with noise on it: as without the patch's hand in it."""
    _, _, x_T, *_ = scene
    seen = []

    def start_of(latent, noise=None):
        guider = made(pack, scene)
        inner = guider.inner_sample
        guider.inner_sample = lambda noise, latent, *a, **k: seen.append(latent) or inner(noise, latent, *a, **k)
        run(guider, MORE, latent, noise)
        return seen.pop()

    changed = x_T + 0.01 * x_T.std()
    assert torch.equal(start_of(changed), changed)
    assert torch.equal(start_of(x_T, torch.randn_like(x_T)), x_T)
    assert not torch.equal(start_of(x_T), x_T)


def test_at_its_own_level_x_T_is_taken_bit_for_bit(pack, scene):
    model, trajectory, x_T, *_ = scene
    start = pack.host.sampling.start.on_the_path
    assert start(model, trajectory, torch.zeros(1), x_T, bench.own_levels(trajectory)) is x_T
    assert start(model, trajectory, torch.zeros(1), x_T, torch.tensor([0.0])) is x_T


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_x_T_is_not_mended_in_silence(pack, scene, value):
    model, trajectory, x_T, *_ = scene
    broken = x_T.clone()
    broken[0, 0, 0, 0] = value
    start = pack.host.sampling.start.on_the_path
    assert start(model, trajectory, torch.zeros(1), broken, torch.tensor(MORE)) is broken


def test_a_batch_of_x_T(pack, scene):
    """Repeat Latent Batch: every picture starts there; where one is another latent, all are left alone."""
    model, trajectory, x_T, *_ = scene
    start, sigmas = pack.host.sampling.start.on_the_path, torch.tensor(MORE)
    batch = x_T.repeat(3, 1, 1, 1)
    wanted = path_at(model, trajectory, MORE[0]).expand(3, -1, -1, -1)
    torch.testing.assert_close(start(model, trajectory, torch.zeros_like(batch), batch, sigmas), wanted)
    batch[1] *= 1.1
    assert start(model, trajectory, torch.zeros_like(batch), batch, sigmas) is batch
