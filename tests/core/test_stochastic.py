"""Stochastic DDIM and CycleDiffusion's encoder, against closed forms, diffusers and loops in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from diffstyler_core.diffusion import ddim
from diffstyler_core.diffusion.encoder import encode
from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.stochastic import (
    FORMULAS,
    StepNoises,
    largest_eta,
    require_eta,
    sigma_of,
    step_sigma,
)
from diffstyler_core.diffusion.trajectory import Trajectory

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ABAR = (1 - BETAS).cumprod(0).tolist()
ETA = {"dual-style": 0.03, "DDIM": 0.6}
"""Within the bounds of 20 steps."""


def made(steps: int = 20, skip: int = 0, prediction: str = "eps") -> NoiseSchedule:
    return NoiseSchedule.leading(ABAR, prediction, steps).without_first(skip)


def latent(seed: int, size: int = 4) -> torch.Tensor:
    return torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(seed))


def output_of(z: torch.Tensor, t: int, seed: int) -> torch.Tensor:
    """A smooth model that mixes channels and depends on the timestep."""
    weights = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed + 99), dtype=torch.float64)
    return torch.tanh(torch.einsum("oc,bchw->bohw", 0.4 * weights, z.double()) + math.cos(t / 300))


def model_of(schedule: NoiseSchedule, seed: int):
    """A k-diffusion denoiser around ``output_of``, with the timesteps it was asked at."""
    asked, levels = [], {schedule.sigma(t): t for t in schedule.timesteps}

    def denoise(x, sigma):
        t = levels[min(levels, key=lambda known: abs(known - float(sigma[0])))]
        asked.append(t)
        z = x.double() * math.sqrt(ABAR[t])
        return ddim.split(output_of(z, t, seed), z, ABAR[t], schedule.prediction)[0].to(x)

    return denoise, asked


def test_sigma_is_the_documents_formula(seed):
    t, s = sorted(torch.randint(0, 1000, (2,), generator=torch.Generator().manual_seed(seed)).tolist())
    s = s if s > t else t + 1 if t < 999 else t
    t = t if t < s else s - 1
    eta, a, b = 0.1, ABAR[s], ABAR[t]
    assert sigma_of(a, b, eta, "dual-style") == pytest.approx(eta * ((1 - a) / (1 - b)) ** 0.5 * (1 - a / b) ** 0.5)
    assert sigma_of(a, b, eta, "DDIM") == pytest.approx(eta * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5)
    ratio = sigma_of(a, b, eta, "dual-style") / sigma_of(a, b, eta, "DDIM")
    assert ratio == pytest.approx((1 - a) / (1 - b)), "how they differ"


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("eta", [0.1, 0.7, 1.0])
def test_a_step_of_ddims_formula_is_diffusers(seed, prediction, eta):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        1000, 0.00085, 0.012, "scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        timestep_spacing="leading", prediction_type="v_prediction" if prediction == "v" else "epsilon",
    )  # fmt: skip
    theirs.set_timesteps(20)
    schedule, generator = made(prediction=prediction), torch.Generator().manual_seed(seed)
    assert tuple(theirs.timesteps.tolist()) == schedule.timesteps
    z, output = (torch.randn(1, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    drawn = tuple(torch.randn(1, 4, 3, 3, generator=generator) for _ in range(20))
    noises = StepNoises(drawn, eta, "DDIM")
    noises.check(schedule, drawn[0].shape)
    for step, t in enumerate(schedule.timesteps[:-1]):  # diffusers' last step has its previous timestep below 0
        x0, eps = ddim.split(output, z, schedule.abar[t], prediction)
        ours = noises.arrive(schedule, step, x0, eps)
        out = theirs.step(output, t, z, eta=eta, variance_noise=drawn[step].double()).prev_sample
        assert (ours - out).abs().max() < 2e-6 * out.abs().max()  # diffusers' table is fp32


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("steps", [1, 10, 50, 100, 333])
@pytest.mark.parametrize("skip", [0, 3])
def test_eta_is_bounded_where_the_noise_would_exceed_the_next_level(formula, steps, skip):
    schedule = made(steps, skip if steps > skip else 0)
    largest, step = largest_eta(schedule, formula)
    require_eta(schedule, largest, formula)
    levels = [schedule.level_abar(i) for i in range(schedule.steps + 1)]
    room = [1 - b - sigma_of(a, b, largest, formula) ** 2 for a, b in pairwise(levels)]
    assert min(room) == pytest.approx(0.0, abs=1e-12)
    assert room[step] == min(room)
    with pytest.raises(ValueError, match=rf"eta: .* at step {step} of {schedule.steps} .*Lower eta, take more steps"):
        require_eta(schedule, 1.01 * largest, formula)
    if formula == "DDIM":
        assert largest >= 1.0, "DDIM's own sigma fits up to eta 1"


@pytest.mark.parametrize("eta", [0, 0.0, -0.1, math.nan, math.inf, "x", None])
def test_no_eta_is_refused_with_the_way_out(eta):
    with pytest.raises(ValueError, match=r"eta must be a number above 0, .*DDIM Invert"):
        require_eta(made(), eta, "DDIM")


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("skip", [0, 5])
def test_decoding_gives_the_content_back(seed, prediction, formula, skip):
    schedule = made(skip=skip, prediction=prediction)
    denoise, asked = model_of(schedule, seed)
    content = latent(seed).double()
    trajectory = encode(denoise, content, schedule, ETA[formula], formula, torch.Generator().manual_seed(seed))
    assert asked == list(schedule.timesteps), "one evaluation a step"
    assert torch.equal(trajectory.content, content.float())
    levels = []
    back = ddim.sample(
        denoise, trajectory.noise.double(), schedule, noises=trajectory.noises,
        at_level=lambda level, z: (levels.append(z), z)[1],
    )  # fmt: skip
    # Noises and latents are kept in fp32; the content of the first level is divided by the root of its abar.
    rounding = 2**-24 / math.sqrt(schedule.level_abar(0))
    assert ((back - content).norm() / content.norm()) < 6 * rounding
    for ours, kept in zip(levels, trajectory.latents, strict=True):
        assert (ours - kept).abs().max() < 40 * rounding, "and every level of the trajectory on the way"


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_the_encoder_is_its_equations_written_out(seed, prediction, formula):
    """A float64 loop with the same draws: x_T, x_{t-1} ~ q(x_{t-1} | x_t, x_0), z_t of each."""
    schedule, content, eta = made(10, 2, prediction), latent(seed).double(), ETA[formula] / 3
    denoise, _ = model_of(schedule, seed)
    ours = encode(denoise, content, schedule, eta, formula, torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed)
    n = lambda: torch.randn(content.shape, generator=draws).double()  # noqa: E731
    levels = [ABAR[t] for t in schedule.timesteps] + [ABAR[0]]
    x = levels[0] ** 0.5 * content + (1 - levels[0]) ** 0.5 * n()
    for i, t in enumerate(schedule.timesteps):
        assert (ours.latents[i] - x).abs().max() < 1e-5
        a, b = levels[i], levels[i + 1]
        ratio = (1 - a) / (1 - b) if formula == "dual-style" else (1 - b) / (1 - a)
        sigma = eta * ratio**0.5 * (1 - a / b) ** 0.5
        towards = (1 - b - sigma**2) ** 0.5
        true_eps = (x - a**0.5 * content) / (1 - a) ** 0.5
        following = content if t == 1 else b**0.5 * content + towards * true_eps + sigma * n()
        out = output_of(x, t, seed)
        x0 = a**0.5 * x - (1 - a) ** 0.5 * out if prediction == "v" else (x - (1 - a) ** 0.5 * out) / a**0.5
        eps = (1 - a) ** 0.5 * x + a**0.5 * out if prediction == "v" else out
        z = (following - b**0.5 * x0 - towards * eps) / sigma
        assert (ours.noises.tensors[i] - z).abs().max() < 1e-4 * z.abs().max()
        x = following


@pytest.mark.parametrize("formula", FORMULAS)
def test_eulers_answer_arrives_where_stochastic_ddim_does(seed, formula):
    schedule, generator = made(), torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(1, 4, 3, 3, generator=generator, dtype=torch.float64)  # noqa: E731
    noises = StepNoises(tuple(draw() for _ in range(20)), ETA[formula], formula)
    for step, t in enumerate(schedule.timesteps):
        z, x0 = draw(), draw()
        eps = (z - ABAR[t] ** 0.5 * x0) / (1 - ABAR[t]) ** 0.5
        sigma, after = schedule.sigma(t), (1 / schedule.level_abar(step + 1) - 1) ** 0.5
        x = z * (1 + sigma**2) ** 0.5
        answer = noises.jump(schedule, step).seen_by_euler(x, x0, sigma, after)
        euler = x + (after - sigma) * (x - answer) / sigma
        expected = noises.arrive(schedule, step, x0, eps) / schedule.level_abar(step + 1) ** 0.5
        assert (euler - expected).abs().max() < 1e-9 * expected.abs().max()


def test_a_seed_is_a_path(seed):
    schedule = made(5)
    denoise, _ = model_of(schedule, seed)
    run = lambda s: encode(denoise, latent(seed), schedule, 0.02, "DDIM", torch.Generator().manual_seed(s))  # noqa: E731
    first, same, other = run(seed), run(seed), run(seed + 1)
    assert all(torch.equal(a, b) for a, b in zip(first.noises.tensors, same.noises.tensors, strict=True))
    assert not torch.equal(first.noise, other.noise)
    assert torch.equal(first.content, other.content)


def test_a_run_that_skips_keeps_the_rest_of_the_whole_one():
    whole, rest = made(100), made(100, 10)
    assert rest.timesteps == whole.timesteps[10:]
    assert (rest.steps, rest.skipped, rest.span, whole.span) == (90, 10, 900.0, 1000.0)
    assert rest.without_first(5).skipped == 15
    for skip in (-1, 100, 1.5):
        with pytest.raises(ValueError, match=r"skip must lie in 0\.\.99"):
            whole.without_first(skip)


def test_noises_that_do_not_fit_are_refused(seed):
    schedule, latents = made(4), (latent(seed),) * 5
    drawn = tuple(latent(seed + i) for i in range(4))
    assert Trajectory(latents, schedule, noises=StepNoises(drawn, 0.01, "DDIM")).jump(0) is not None
    assert Trajectory(latents, schedule).jump(0) is None
    for noises, message in (
        (StepNoises(drawn[:3], 0.01, "DDIM"), "as many noises, got 3"),
        (StepNoises((*drawn[:3], latent(seed, 5)), 0.01, "DDIM"), "latents' shape"),
        (StepNoises(drawn, 0.9, "dual-style"), "eta"),
        (StepNoises(drawn, 0.1, "other"), "formula must be one of dual-style, DDIM, got 'other'"),
    ):
        with pytest.raises(ValueError, match=message):
            Trajectory(latents, schedule, noises=noises)


def test_a_batch_and_a_broken_model_are_refused(seed):
    schedule, generator = made(4), torch.Generator()
    denoise, asked = model_of(schedule, seed)
    with pytest.raises(ValueError, match="one content latent"):
        encode(denoise, torch.zeros(2, 4, 3, 3), schedule, 0.1, "DDIM", generator)
    assert asked == []
    with pytest.raises(ValueError, match=r"broke at step 0 of 4, t = 751: .*not finite"):
        encode(lambda x, sigma: x * math.nan, latent(seed), schedule, 0.1, "DDIM", generator)


def test_a_sigma_of_a_step_is_between_its_levels():
    schedule = made(20)
    assert step_sigma(schedule, 3, 0.5, "DDIM") == sigma_of(ABAR[801], ABAR[751], 0.5, "DDIM")
