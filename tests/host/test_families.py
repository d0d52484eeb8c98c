"""Every family of UNet against diffusers on the same weights: inversion, sampling with guidance, a LoRA in the run."""

from __future__ import annotations

import diffusers
import pytest
import reference
import written_out
from families import FAMILIES, TERMINAL, Scene, relative

NOTHING = {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"}


@pytest.fixture(params=FAMILIES)
def scene(request, pack, seed):
    return Scene(pack, request.param, seed)


def inverted(scene):
    """The content's path over diffusers' UNet in float64, the noise first.

    By diffusers' own scheduler for eps; a v-prediction's eps is read at the timestep told (method.md section 2).
    """
    abar, path, left = reference.cumulative_alphas(scene.family.zsnr), [scene.z.double()], 0
    ddim = reference.scheduler(diffusers.DDIMInverseScheduler, scene.schedule.steps)
    for t in reversed(scene.schedule.timesteps):
        z = path[-1]
        out = written_out.predict(scene.double, z, t, [scene.told[0]])
        if scene.family.velocity:
            eps = abar[t] ** 0.5 * out + (1 - abar[t]) ** 0.5 * z
            x0 = (z - (1 - abar[left]) ** 0.5 * eps) / abar[left] ** 0.5
            path.append(abar[t] ** 0.5 * x0 + (1 - abar[t]) ** 0.5 * eps)
        else:
            path.append(ddim.step(out, t, z).prev_sample)
        left = t
    return path[::-1]


def test_inversion(scene, measured):
    theirs = inverted(scene)
    worst = max(relative(a, b) for a, b in zip(scene.inverted().latents, theirs, strict=True))
    measured("inversion against diffusers' UNet in float64, relative", worst, at_most=1e-5)
    assert (scene.schedule.timesteps == TERMINAL) == scene.family.zsnr


def sampled(scene, unet):
    """DDIM with guidance over diffusers' UNet in float64, from z."""
    off = written_out.Taking(False, 0.0)
    path = [scene.z] * (scene.schedule.steps + 1)
    return scene.one_style(path, lambda step: unet, lambda step, t: off)


def test_sampling_and_a_lora(scene, measured):
    family = scene.pack.host.model.family_of(scene.model)
    path = (scene.z,) * (scene.schedule.steps + 1)
    trajectory = scene.pack.core.diffusion.trajectory.Trajectory(path, scene.schedule, family)
    plain, lora = sampled(scene, scene.double), scene.lora(0)
    measured("sampling, relative", relative(scene.sample(trajectory, **NOTHING), plain), at_most=1e-5)
    merged = sampled(scene, written_out.merged(scene.double, lora, 0.5))
    ours = scene.sample(trajectory, lora=lora, lora_strength=0.5, **NOTHING)
    measured("with a LoRA, relative", relative(ours, merged), at_most=1e-5)
    measured("what the LoRA changes, relative", relative(merged, plain), at_least=1e-2)
