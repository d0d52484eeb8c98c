"""Inversion and sampling against diffusers on the same weights, in fp32."""

from __future__ import annotations

import diffusers
import pytest
import reference
import torch
from probes import counting


def rows(seed: int, count: int, size: int = 16) -> list[torch.Tensor]:
    """A unit-scale latent and two prompts' embeddings."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, 4, size, size, generator=generator)
    return [latent, *(torch.randn(1, 77, 32, generator=generator) for _ in range(count))]


def gap(ours, theirs) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def inverted(pack, model, z, context, schedule, refinements=0):
    """The pack's trajectory from the latent z of the model's own scale, the content first."""
    samples = model.model.process_latent_out(z)
    trajectory, _ = pack.pipeline.invert.invert_latent(model, samples, [[context, {}]], schedule, refinements)
    return trajectory.latents[::-1]


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_inversion_follows_diffusers(pack, seed, measured, kind, steps):
    unet, model = reference.pair(kind, seed)
    z, context = rows(seed, 1)
    ours = inverted(pack, model, z, context, pack.host.model.schedule_of(model, steps))
    theirs = reference.inverted(unet, z, context, steps)
    measured("largest difference over the trajectory", gap(ours, theirs), at_most=1e-5)


@pytest.mark.parametrize(
    ("kind", "steps", "zsnr", "refinements"),
    [
        ("sd21", 10, False, 0),
        ("sd21", 50, False, 0),
        ("sd21", 10, False, 2),
        ("sd21", 10, True, 0),
        ("small", 500, True, 0),  # visits t = 999, where zero-terminal-SNR models have no signal left
    ],
)
def test_inversion_of_a_v_model_reads_eps_at_the_timestep_told(pack, seed, measured, kind, steps, zsnr, refinements):
    """Against a float64 loop: diffusers' own scheduler splits v at the level left."""
    unet, model = reference.pair(kind, seed, velocity=True, zsnr=zsnr)
    z, context = rows(seed, 1, size=8 if kind == "small" else 16)
    schedule = pack.host.model.schedule_of(model, steps)
    assert (schedule.abar[schedule.timesteps[0]] < 1e-7) == (steps == 500)
    ours = inverted(pack, model, z, context, schedule, refinements)
    exact = reference.inverted_velocity(unet, z, context, steps, zsnr, refinements)
    worst = max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, exact, strict=True))
    measured("largest relative difference over the trajectory", worst, at_most=1e-5)


def test_inversion_over_1000_steps_follows_diffusers(pack, seed, measured):
    unet, model = reference.pair("small", seed)
    z, context = rows(seed, 1, size=8)
    schedule = pack.host.model.schedule_of(model, 50, "forward 1000")
    assert len(schedule.ascent()) == 981
    ours = inverted(pack, model, z, context, schedule)
    table = reference.scheduler(diffusers.DDIMInverseScheduler, 999).timesteps[:981].tolist()
    assert table == [t for t, _, _ in schedule.ascent()]
    every = [z]
    ddim = reference.scheduler(diffusers.DDIMInverseScheduler, 999)
    for t in table:
        output = unet(every[-1], t, encoder_hidden_states=context).sample
        every.append(ddim.step(output, t, every[-1]).prev_sample)
    theirs = [every[0], *(every[t] for t in reversed(schedule.timesteps))]
    measured("largest difference over the trajectory", gap(ours, theirs), at_most=1e-4)


@pytest.mark.parametrize(("kind", "velocity"), [("sd15", False), ("sd21", False), ("sd21", True)])
def test_sampling_with_guidance_follows_diffusers(pack, seed, measured, kind, velocity):
    """50 steps, cfg 7.5, no LoRA, nothing injected; the floor is what diffusers itself loses to fp32."""
    unet, model = reference.pair(kind, seed, velocity)
    z, positive, negative = rows(seed, 2, size=8)
    ours = sample_plainly(pack, model, z, positive, negative, 7.5, 50)
    theirs = reference.sampled(unet, z, positive, negative, 7.5, 50, velocity)
    exact = reference.sampled(
        reference.in_float64(unet), z.double(), positive.double(), negative.double(), 7.5, 50, velocity
    )
    measured("diffusers fp32 against diffusers float64 (the floor)", gap([theirs], [exact]))
    measured("the pack against diffusers float64", gap([ours], [exact]))
    measured("the pack against diffusers fp32", gap([ours], [theirs]), at_most=5e-4)


def sample_plainly(pack, model, z, positive, negative, cfg, steps):
    """The Injected LoRA Sampler's run with everything switched off, in the model's own scale."""
    schedule = pack.host.model.schedule_of(model, steps)
    trajectory = pack.core.diffusion.trajectory.Trajectory((z,) * (steps + 1), schedule)
    start = pack.host.sampling.stylize.choose_start(model, trajectory, None)
    prompts = [[positive, {}]], [[negative, {}]]
    base = pack.host.lora.run.LoraRun(model, None, 1.0, "lora", steps)
    everywhere = pack.host.sampling.branches.Branch(torch.ones(z.shape[-2:]), base)
    alone = pack.host.sampling.branches.Composition((everywhere,), None)
    samples = pack.host.sampling.stylize.sample_injected(model, trajectory, alone, *prompts, cfg, start)
    return model.model.process_latent_in(samples)


@pytest.mark.parametrize("velocity", [False, True])
def test_refinement_makes_inversion_exact(pack, seed, measured, velocity):
    """Inverting, then sampling with the same prompt and no guidance, gives the start back.

    The fixed point is found the faster, the less eps changes with z. On a trained UNet it changes at most about as
    much as z does (at the noisiest level eps is z itself); diffusers' first weights, their output halved, behave
    like that. Weights of unit gain (``tiny.fill``) change it many times as much, and the iteration diverges on them.
    Five refinements (300 evaluations) come to 2e-5 to 1e-3 here, by seed; eight (450) have a margin.
    """
    _, model = reference.pair("small", seed, velocity, damping=0.5)
    z, context = rows(seed, 1, size=8)
    schedule = pack.host.model.schedule_of(model, 50)
    counted, evaluated = counting(model)
    errors, evaluations = {}, {}
    for refinements in (0, 8):
        evaluated.clear()
        samples = model.model.process_latent_out(z)
        _, x_T = pack.pipeline.invert.invert_latent(counted, samples, [[context, {}]], schedule, refinements)
        evaluations[refinements] = sum(evaluated)
        back = pack.pipeline.invert.reconstruct_latent(model, x_T, [[context, {}]], schedule)
        errors[refinements] = ((back - samples).norm() / samples.norm()).item()
    measured("evaluations of plain inversion", evaluations[0], at_most=50, at_least=50)
    measured("evaluations with 8 refinements", evaluations[8], at_most=450, at_least=450)
    measured("relative error of plain inversion", errors[0])
    measured("relative error with 8 refinements", errors[8], at_most=1e-3)
    measured("plain error over refined error", errors[0] / errors[8], at_least=10)
