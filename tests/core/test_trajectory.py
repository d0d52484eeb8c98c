"""Inversion and sampling against closed forms, and a trajectory's guards."""

from __future__ import annotations

import bisect
import math

import pytest
import torch

from diffstyler_core.diffusion import ddim
from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.trajectory import Trajectory, invert

ABAR = [math.exp(-6.0 * ((i + 1) / 1000) ** 2) for i in range(1000)]


def made(steps: int = 10, prediction: str = "eps", spacing: str = "leading") -> NoiseSchedule:
    return NoiseSchedule.leading(ABAR, prediction, steps, spacing)


def model_of(predict, schedule: NoiseSchedule):
    """A k-diffusion denoiser around ``predict(z, t) -> eps or v``, and a count of its evaluations."""
    calls, sigmas = [], [schedule.sigma(t) for t in range(1000)]

    def denoise(x, sigma):
        t = min(bisect.bisect_left(sigmas, float(sigma[0]) * (1 - 1e-6)), 999)
        calls.append(t)
        z = x.double() * math.sqrt(ABAR[t])
        return ddim.split(predict(z, t), z, ABAR[t], schedule.prediction)[0].to(x)

    return denoise, calls


def latent(seed: int) -> torch.Tensor:
    return torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spacing", ["leading", "forward 1000"])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_known_noise_is_followed_exactly(seed, prediction, spacing):
    """When the model names the one noise, every level is sqrt(abar) x0 + sqrt(1 - abar) noise."""
    schedule = made(prediction=prediction, spacing=spacing)
    x0, noise = latent(seed), latent(seed + 1).double()

    def predict(z, t):
        if prediction == "eps":
            return noise
        return (noise - math.sqrt(1 - ABAR[t]) * z) / math.sqrt(
            ABAR[t]
        )  # so that sqrt(abar) v + sqrt(1 - abar) z = noise

    start = ddim.join(x0.double(), noise, ABAR[0]).float()
    denoise, calls = model_of(predict, schedule)
    trajectory = invert(denoise, start, schedule)
    assert len(calls) == len(schedule.ascent())
    for level, z in enumerate(trajectory.latents):
        expected = ddim.join(x0.double(), noise, schedule.level_abar(level))
        assert (z - expected).abs().max() < 1e-4, level


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_sampling_undoes_refined_inversion(seed, prediction):
    """A model that shifts with z by less than z itself: the fixed point is the exact inverse of sampling."""
    schedule = made(prediction=prediction)
    noise = latent(seed + 1).double()

    def predict(z, t):
        return 0.5 * noise + 0.2 * torch.sin(z)

    denoise, calls = model_of(predict, schedule)
    errors = []
    for refinements in (0, 12):
        calls.clear()
        trajectory = invert(denoise, latent(seed), schedule, refinements)
        assert len(calls) == 10 * (1 + refinements)
        back = ddim.sample(denoise, trajectory.noise, schedule)
        errors.append((back - latent(seed)).abs().max().item())
    assert errors[1] < 1e-4 < 10 * errors[1] + 1e-3 < errors[0]


@pytest.mark.parametrize("refinements", [0, 2])
@pytest.mark.parametrize(("prediction", "last"), [("eps", ABAR[901]), ("v", ABAR[901]), ("v", 4.9e-8)])
def test_one_step_up_is_equation_1(seed, prediction, last, refinements):
    """eps is read at the timestep that the model is told: first from z itself, then from each estimate of z_t.

    The small ``last`` is a v model of zero terminal SNR at its noisiest level.
    """
    table = (*ABAR[:901], last)
    schedule = NoiseSchedule(table, prediction, (901, 701))
    z, a, b = latent(seed).double(), math.sqrt(table[901]), math.sqrt(1 - table[901])

    def denoise(x, sigma):
        at = x.double() * a
        return ddim.split(0.4 * torch.sin(at), at, table[901], prediction)[0].to(x)

    z_t = z
    for _ in range(1 + refinements):
        output = 0.4 * torch.sin(z_t)
        eps = output if prediction == "eps" else a * output + b * z_t
        z_t = a * (z - math.sqrt(1 - ABAR[701]) * eps) / math.sqrt(ABAR[701]) + b * eps
    up = ddim.step_up(denoise, z.float(), schedule, 901, ABAR[701], refinements)
    assert (up - z_t).abs().max() < 1e-5


@pytest.mark.parametrize("t", [1, 301, 901])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_unets_output_is_recovered_from_the_denoiser(seed, prediction, t):
    schedule = made(prediction=prediction)
    output = latent(seed + 1)
    denoise, calls = model_of(lambda z, t: output.double(), schedule)
    assert (ddim.predict(denoise, latent(seed), schedule, t) - output).abs().max() < 2e-3 * schedule.sigma(1) ** -1
    assert calls == [t]


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("abar", [0.999, 0.5, 0.003])
def test_split_and_join_are_inverse(seed, prediction, abar):
    z, output = latent(seed).double(), latent(seed + 1).double()
    x0, eps = ddim.split(output, z, abar, prediction)
    assert torch.allclose(ddim.join(x0, eps, abar), z)
    velocity = math.sqrt(abar) * eps - math.sqrt(1 - abar) * x0
    assert torch.allclose(output, velocity if prediction == "v" else eps)


def test_progress_is_told_after_each_step_and_may_stop():
    schedule, seen = made(), []
    denoise, _ = model_of(lambda z, t: z * 0, schedule)

    def on_step(step, steps, z):
        seen.append((step, steps))
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        invert(denoise, latent(0), schedule, on_step=on_step)
    assert seen == [(i, 10) for i in range(4)]


@pytest.mark.parametrize(
    ("shape", "refinements", "message"),
    [
        ((0, 4, 3, 3), 0, r"content latents \[B, C, H, W\], got shape \(0, 4, 3, 3\)"),
        ((4, 3, 3), 0, r"content latents \[B, C, H, W\], got shape \(4, 3, 3\)"),
        ((1, 4, 3, 3), -1, "refinements must be 0 or more, got -1"),
    ],
)
def test_inversion_refuses(shape, refinements, message):
    with pytest.raises(ValueError, match=message):
        invert(lambda x, sigma: x, torch.zeros(shape), made(), refinements)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inversion_that_breaks_names_the_timestep(value):
    schedule = made()
    denoise, _ = model_of(lambda z, t: z * (value if t == 301 else 0.1), schedule)
    with pytest.raises(ValueError, match="broke at timestep 301"):
        invert(denoise, latent(0), schedule)


def test_inversion_leaves_the_content_alone(seed):
    schedule, content = made(), latent(seed)
    before = content.clone()
    denoise, _ = model_of(lambda z, t: 0.1 * z, schedule)
    trajectory = invert(denoise, content, schedule)
    assert torch.equal(content, before)
    assert torch.equal(trajectory.content, before)
    assert [z.dtype for z in trajectory.latents] == [torch.float32] * 11
    assert trajectory.megabytes == pytest.approx(11 * 36 * 4 / 1e6)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ([torch.zeros(1, 4, 2, 2)] * 10, "10 steps holds 11 latents, got 10"),
        ([torch.zeros(1, 4, 2, 2)] * 12, "10 steps holds 11 latents, got 12"),
        ([torch.zeros(0, 4, 2, 2)] * 11, r"one shape \[B, C, H, W\], got \[\(0, 4, 2, 2\)\]"),
        ([torch.zeros(4, 2, 2)] * 11, r"one shape \[B, C, H, W\], got \[\(4, 2, 2\)\]"),
        ([torch.zeros(1, 4, 2, 2)] * 10 + [torch.zeros(1, 4, 2, 3)], r"\(1, 4, 2, 2\), \(1, 4, 2, 3\)"),
    ],
)
def test_trajectory_refuses(latents, message):
    with pytest.raises(ValueError, match=message):
        Trajectory(tuple(latents), made())


def test_a_trajectorys_tensors_are_seen_by_caches_that_look_into_tuples():
    trajectory = Trajectory((torch.zeros(1, 4, 2, 2),) * 11, made())
    assert isinstance(trajectory, tuple)
    assert sum(isinstance(t, torch.Tensor) for part in trajectory if isinstance(part, tuple) for t in part) == 11


def test_frames_of_a_trajectory_and_back():
    whole = Trajectory(tuple(torch.randn(3, 4, 2, 2) for _ in range(11)), made())
    parts = [whole.frames(0, 2), whole.frames(2, 3)]
    assert [part.frame_count for part in parts] == [2, 1]
    assert all(torch.equal(a, b) for a, b in zip(Trajectory.joined(parts).latents, whole.latents, strict=True))
    assert whole.frames(0, 3) is whole
