"""Each family of UNet with diffusers' on the same weights, and one content, its prompts and LoRAs.

SDXL is told its pooled prompt and its sizes by diffusers' own ``text_time`` embedding, from which the host's ``y`` must
not differ: the sizes that CLIP Text Encode leaves to the latent, and those that CLIP Text Encode (SDXL) names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import reference
import steps
import torch
import written_out

HEIGHT, WIDTH = 8, 16
"""Of the latent."""
NAMED = {"width": 1024, "height": 768, "crop_w": 8, "crop_h": 16, "target_width": 512, "target_height": 640}
"""As CLIP Text Encode (SDXL) puts them on a conditioning."""
SIZES = {False: (64, 128, 0, 0, 64, 128), True: (768, 1024, 16, 8, 640, 512)}
"""Original, crop and target, height first; without names (False) the host takes the picture's."""
TERMINAL = (999, 667, 334, 1)
"""Four timesteps from where a model of zero terminal SNR has no signal left; DDIM's own four begin at 751."""


class Family(NamedTuple):
    kind: str
    velocity: bool = False
    zsnr: bool = False
    named: bool = False


FAMILIES = {
    "SD1.5 eps": Family("sd15"),
    "SD2.1 eps": Family("sd21"),
    "SD2.1 v": Family("sd21", True),
    "SD2.1 v, zero SNR": Family("sd21", True, True),
    "SDXL eps": Family("sdxl"),
    "SDXL eps, sizes named": Family("sdxl", named=True),
    "SDXL v": Family("sdxl", True),
    "SDXL v, zero SNR": Family("sdxl", True, True),
}
MAIN = ("SD1.5 eps", "SD2.1 eps", "SD2.1 v", "SDXL eps", "SDXL v, zero SNR")
"""One of each: attention by convolutions and by matrices, one and two encoders, three kinds of prediction."""
LAYERS = {"sdxl": ("1", "1-5")}
"""Feature and self-attention layers that 'auto' takes at SDXL's 1024 pixels; the paper's are those of the others."""


class Scene:
    """Two UNets with the same weights, a latent, and five prompts: content, positive, negative, two of styles."""

    def __init__(self, pack: Any, name: str, seed: int, count: int = 4) -> None:
        self.pack, self.seed, self.family = pack, seed, FAMILIES[name]
        self.unet, self.model = reference.pair(self.family.kind, seed, self.family.velocity, self.family.zsnr)
        self.double = reference.in_float64(self.unet)
        generator = torch.Generator().manual_seed(seed)
        self.z = torch.randn(1, 4, HEIGHT, WIDTH, generator=generator)
        contexts = [torch.randn(1, 77, 32, generator=generator) for _ in range(5)]
        pooled = [torch.randn(1, 32, generator=generator) for _ in range(5)]
        sdxl, sizes = self.family.kind == "sdxl", SIZES[self.family.named]
        self.told = [
            written_out.Prompt(context, own if sdxl else None, sizes if sdxl else ())
            for context, own in zip(contexts, pooled, strict=True)
        ]
        self.schedule = pack.host.model.schedule_of(self.model, count)
        if self.family.zsnr and count == len(TERMINAL):
            self.schedule = replace(self.schedule, timesteps=TERMINAL)
        feature, attention = LAYERS.get(self.family.kind, ("4", "4-11"))
        self.layers = {"feature_layers": feature, "self_attention_layers": attention}
        self.sites = written_out.Sites(*map(pack.core.injection.sites.parse_layers, (feature, attention)))

    def prompt(self, i: int) -> Any:
        """A CONDITIONING as the host's nodes make it."""
        if self.family.kind != "sdxl":
            return [[self.told[i].context, {}]]
        named = NAMED if self.family.named else {}
        return [[self.told[i].context, {"pooled_output": self.told[i].pooled, **named}]]

    def lora(self, i: int) -> dict[str, torch.Tensor]:
        """A random LoRA that shows."""
        return steps.random_lora(self.pack, self.model, self.seed + 10 + i, size=0.3)

    def inverted(self) -> Any:
        """The content's TRAJECTORY."""
        samples = self.model.model.process_latent_out(self.z)
        return self.pack.pipeline.invert.invert_latent(self.model, samples, self.prompt(0), self.schedule, 0)[0]

    def captured(self) -> Any:
        """The content's FEATURES at ``layers``, all steps, in fp32."""
        count = self.schedule.steps
        windows = {"feature_steps": count, "attention_steps": count}
        return steps.capture(self.pack, self.model, self.inverted(), self.prompt(0), **self.layers, **windows)

    def sample(self, features: Any, **changes: Any) -> torch.Tensor:
        """The Injected LoRA Sampler's result, in the model's own scale."""
        prompts = self.prompt(1), self.prompt(2)
        samples = steps.sample(self.pack, self.model, features, *prompts, **changes)
        return self.model.model.process_latent_in(samples)

    def written(self, path: Any) -> written_out.Written:
        """The loop over diffusers' UNet along a path, with the sampler's guidance."""
        family = self.family
        return written_out.Written(
            path, self.schedule.timesteps, self.sites, self.double, 3.0, family.velocity, family.zsnr
        )

    def one_style(self, path: Any, unet: Any, taking: Any) -> torch.Tensor:
        """That loop with one style over the whole picture. unet: by step. taking: by step and timestep."""
        whole = torch.ones(HEIGHT, WIDTH, dtype=torch.float64)
        row = written_out.Row(unet, self.told[1], taking, whole)
        return self.written(path).run([row], self.told[0], self.told[2], "regenerate", self.told[1])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()
