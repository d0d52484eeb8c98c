"""Every family of UNet against diffusers on the same weights: inversion, sampling with guidance, a LoRA in the run.

SDXL is told its pooled prompt and its sizes by diffusers' own ``text_time`` embedding, from which the host's ``y`` must
not differ: the sizes that CLIP Text Encode leaves to the latent, and those that CLIP Text Encode (SDXL) names.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import reference
import steps
import torch

STEPS = 4
NAMED = {"width": 1024, "height": 768, "crop_w": 8, "crop_h": 16, "target_width": 512, "target_height": 640}
"""As CLIP Text Encode (SDXL) puts them on a conditioning."""
SIZES = {"sdxl": (64, 64, 0, 0, 64, 64), "sdxl, sizes named": (768, 1024, 16, 8, 640, 512)}
"""Original, crop and target, height first; without names the host takes the picture's, here of an 8 x 8 latent."""


class Family(NamedTuple):
    kind: str
    velocity: bool = False
    zsnr: bool = False
    sizes: str = ""


FAMILIES = {
    "SD1.5 eps": Family("sd15"),
    "SD2.1 eps": Family("sd21"),
    "SD2.1 v": Family("sd21", True),
    "SD2.1 v, zero SNR": Family("sd21", True, True),
    "SDXL eps": Family("sdxl", sizes="sdxl"),
    "SDXL eps, sizes named": Family("sdxl", sizes="sdxl, sizes named"),
    "SDXL v": Family("sdxl", True, sizes="sdxl"),
    "SDXL v, zero SNR": Family("sdxl", True, True, sizes="sdxl"),
}


class Scene:
    """One family's two UNets with the same weights, a latent and three prompts: content, positive, negative."""

    def __init__(self, pack: Any, name: str, seed: int) -> None:
        self.pack, self.family = pack, FAMILIES[name]
        self.unet, self.model = reference.pair(self.family.kind, seed, self.family.velocity, self.family.zsnr)
        generator = torch.Generator().manual_seed(seed)
        self.z = torch.randn(1, 4, 8, 8, generator=generator)
        self.contexts = [torch.randn(1, 77, 32, generator=generator) for _ in range(3)]
        self.pooled = [torch.randn(1, 32, generator=generator) for _ in range(3)]
        self.schedule = pack.host.model.schedule_of(self.model, STEPS)

    def prompt(self, i: int) -> Any:
        """A CONDITIONING as the host's nodes make it."""
        if self.family.kind != "sdxl":
            return [[self.contexts[i], {}]]
        named = NAMED if self.family.sizes == "sdxl, sizes named" else {}
        return [[self.contexts[i], {"pooled_output": self.pooled[i], **named}]]

    def theirs(self, *prompts: int, unet: Any = None) -> Any:
        """diffusers' UNet for rows of these prompts, in float64."""
        unet = self.unet if unet is None else unet
        if self.family.kind == "sdxl":
            unet = reference.Sized(unet, torch.cat([self.pooled[i] for i in prompts]), SIZES[self.family.sizes])
        return reference.in_float64(unet)

    def sampled(self, **lora: Any) -> torch.Tensor:
        """The pack's run from z with guidance, nothing injected, in the model's own scale."""
        trajectory_of = self.pack.core.diffusion.trajectory.Trajectory
        family = self.pack.host.model.family_of(self.model)
        trajectory = trajectory_of((self.z,) * (STEPS + 1), self.schedule, family)
        positive, negative = self.prompt(1), self.prompt(2)
        off = {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"}
        samples = self.sample(trajectory, positive, negative, **off, **lora)
        return self.model.model.process_latent_in(samples)

    def sample(self, trajectory: Any, positive: Any, negative: Any, **changes: Any) -> torch.Tensor:
        settings = {"cfg": 3.0, "lora_name": "none", "lora_strength": 1.0, **changes}
        settings = steps.custom(STEPS, settings)
        node = self.pack.pipeline.sampler.InjectedLoRASampler
        out = node.execute(model=self.model, features=trajectory, positive=positive, negative=negative, **settings)
        return out.args[0]["samples"]

    def sampled_by_diffusers(self, unet: Any = None) -> torch.Tensor:
        """DDIM in float64 over the same levels, written out: x0 and eps of the guided prediction, then a level down."""
        exact, abar = self.theirs(2, 1, unet=unet), reference.cumulative_alphas(self.family.zsnr)
        prompts, z = torch.cat([self.contexts[2], self.contexts[1]]).double(), self.z.double()
        levels = self.schedule.timesteps
        for t, after in zip(levels, (*levels[1:], 0), strict=True):
            without, guided = exact(torch.cat([z, z]), t, encoder_hidden_states=prompts).sample.chunk(2)
            out, a, b = without + 3.0 * (guided - without), abar[t] ** 0.5, (1 - abar[t]) ** 0.5
            eps = a * out + b * z if self.family.velocity else out
            x0 = a * z - b * out if self.family.velocity else (z - b * out) / a
            z = abar[after] ** 0.5 * x0 + (1 - abar[after]) ** 0.5 * eps
        return z


@pytest.fixture(params=FAMILIES)
def scene(request, pack, seed):
    return Scene(pack, request.param, seed)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def test_inversion(scene, measured):
    samples = scene.model.model.process_latent_out(scene.z)
    trajectory, _ = scene.pack.pipeline.invert.invert_latent(scene.model, samples, scene.prompt(0), scene.schedule, 0)
    unet, context, family = scene.theirs(0), scene.contexts[0].double(), scene.family
    if family.velocity:
        theirs = reference.inverted_velocity(unet, scene.z, context, STEPS, family.zsnr)
    else:
        theirs = reference.inverted(unet, scene.z.double(), context, STEPS)
    worst = max(relative(a, b) for a, b in zip(trajectory.latents[::-1], theirs, strict=True))
    measured("inversion against diffusers' UNet in float64, relative", worst, at_most=1e-5)


def test_sampling_and_a_lora(scene, measured):
    plain = scene.sampled_by_diffusers()
    measured("sampling, relative", relative(scene.sampled(), plain), at_most=1e-4)
    lora = steps.random_lora(scene.pack, scene.model, 7, size=0.3)
    unet = copy.deepcopy(scene.unet)
    for name, module in unet.named_modules():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.alpha" in lora:
            module.weight.data += 0.5 * lora[f"{key}.lora_up.weight"] @ lora[f"{key}.lora_down.weight"]
    merged = scene.sampled_by_diffusers(unet)
    measured("with a LoRA, relative", relative(scene.sampled(lora=lora, lora_strength=0.5), merged), at_most=1e-4)
    measured("what the LoRA changes, relative", relative(merged, plain), at_least=1e-2)
