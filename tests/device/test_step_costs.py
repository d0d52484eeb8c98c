"""What a sampling step costs beside KSampler with Load LoRA: products' FLOPs and kernels, exact, at full size.

Of each run the difference of four steps and three, so that loading and what is made once do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import apply_bench
import comfy.samplers
import comfy.sd
import full_size
import pytest
import steps
import torch
from absent_device import Seen
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample

RANK = 16
COUNTS = (3, 4)
WINDOWS = {"attention_mode": "fixed", "cfg": 3.0}


class Cost(NamedTuple):
    """Of one step."""

    kernels: int
    flops: int


class Scene:
    """A full-size model with LoRAs on q, k and v of every attention, and what runs of three and four steps need."""

    def __init__(self, pack: Any, device: Any, kind: str, seed: int) -> None:
        self.pack, self.device = pack, device
        self.model = full_size.make_model(kind, torch.float16)
        self.samples = full_size.make_latent(kind, seed)["samples"]
        self.empty, *self.prompts, self.negative = (full_size.make_prompt(kind, seed + i) for i in range(4))
        self.loras = [steps.random_lora(pack, self.model, seed + i, rank=RANK) for i in range(4)]
        self.features = {count: self.captured(count) for count in COUNTS}

    def captured(self, count: int) -> Any:
        latent = {"samples": self.samples}
        trajectory = steps.invert(self.pack, self.model, latent, self.empty, steps=count)[0]
        auto = {f"{kind}_layers": "auto" for kind in ("feature", "self_attention")}
        windows = {"feature_steps": count, "attention_steps": count}
        return steps.capture(self.pack, self.model, trajectory, self.empty, precision="fp16", **auto, **windows)

    def cost(self, run: Callable[[int], object]) -> Cost:
        run(COUNTS[0])
        less, more = (self.seen(run, count) for count in COUNTS)
        return Cost(more.kernels - less.kernels, more.flops - less.flops)

    def seen(self, run: Callable[[int], object], count: int) -> Seen:
        self.device.seen = Seen()
        run(count)
        return self.device.seen

    def plain(self, model: Any) -> Callable[[int], object]:
        """The host's euler with as many steps."""

        def run(count: int) -> object:
            guider = comfy.samplers.CFGGuider(model)
            guider.set_conds(self.prompts[0], self.negative)
            guider.set_cfg(3.0)
            sampler, sigmas = comfy.samplers.ksampler("euler"), torch.linspace(14.0, 0.1, count + 1)
            return guider.sample(torch.zeros_like(self.samples), self.samples, sampler, sigmas, disable_pbar=True)

        return run

    def sampled(self, inject: bool = True, **changes: Any) -> Callable[[int], object]:
        """The Injected LoRA Sampler over features that are injected at every step, or at none."""

        def run(count: int) -> object:
            windows = {"feature_steps": count if inject else 0, "attention_steps": count if inject else 0}
            features, prompts = self.features[count], (self.prompts[0], self.negative)
            return steps.sample(self.pack, self.model, features, *prompts, **WINDOWS, **windows, **changes)

        return run

    def applied(self, count: int) -> object:
        """Apply Injection under the host's euler."""
        features = self.features[count]
        windows = {"feature_steps": count, "attention_steps": count, "attention_mode": "fixed"}
        model = apply_bench.injected(self.pack, self.model, features, **windows)
        return apply_bench.at_own_levels(model, features.trajectory, self.prompts[0], self.negative)

    def styles(self, count: int) -> tuple:
        """So many styles side by side, each with a LoRA and one of two prompts."""
        chain = []
        for i in range(count):
            mask = torch.zeros(1, 64, 64)
            mask[..., i * 64 // count : (i + 1) * 64 // count] = 1.0
            chain.append({"lora": self.loras[i], "positive": self.prompts[i % 2], "mask": mask})
        return steps.chain(self.pack, *chain)

    def lora_flops(self, rows: int) -> int:
        """Of the LoRAs' own products in so many rows: a LoRA has two in each layer, of every token."""
        unet, total = self.model.model.diffusion_model, 0
        tokens = _tokens(unet, self.samples.shape[-2] * self.samples.shape[-1])
        for path, module in unet.named_modules():
            if path.endswith(("to_q", "to_k", "to_v")):
                of_prompt = "attn2" in path and not path.endswith("to_q")
                per_row = 77 if of_prompt else tokens[path.rsplit(".transformer_blocks", 1)[0]]
                total += 2 * rows * per_row * RANK * (module.in_features + module.out_features)
        return total


def _tokens(unet: Any, cells: int) -> dict[str, int]:
    """By path of the transformer, the tokens of its grid."""
    out = {}
    for name, module in unet.named_modules():
        cells = cells // 4 if isinstance(module, Downsample) else cells * 4 if isinstance(module, Upsample) else cells
        if isinstance(module, SpatialTransformer):
            out[name] = cells
    return out


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_one_style(pack, absent, seed, measured, kind):
    with absent() as device:
        scene = Scene(pack, device, kind, seed)
        with_lora, _ = comfy.sd.load_lora_for_models(scene.model, None, scene.loras[0], 1.0, 0.0)
        peer = scene.cost(scene.plain(with_lora))
        for name, run in (
            ("nothing injected", scene.sampled(inject=False)),
            ("a LoRA", scene.sampled(inject=False, lora=scene.loras[0])),
        ):
            cost = scene.cost(run)
            assert cost.flops == peer.flops, f"{name}: {cost.flops} FLOPs, KSampler with Load LoRA {peer.flops}"
            measured(f"{name}: kernels a step", cost.kernels / peer.kernels, at_least=0.9, at_most=1.02)
        for name, run in (
            ("injected", scene.sampled()),
            ("injected, with a LoRA", scene.sampled(lora=scene.loras[0])),
            ("Apply Injection", scene.applied),
        ):
            cost = scene.cost(run)
            measured(f"{name}: FLOPs a step", cost.flops / peer.flops, at_least=0.9, at_most=0.99)
            measured(f"{name}: kernels a step", cost.kernels / peer.kernels, at_least=0.9, at_most=1.05)


@pytest.mark.parametrize("count", [2, 4])
def test_several_styles(pack, absent, seed, measured, count):
    """Every row once through the base's layers, each LoRA on its rows: nothing beside the two."""
    with absent() as device:
        scene = Scene(pack, device, "sd15", seed)
        peer = scene.cost(scene.plain(scene.model))
        apart = scene.cost(scene.sampled(inject=False, styles=scene.styles(count), outside="regenerate"))
        assert apart.flops == count * peer.flops + scene.lora_flops(2 * count)
        injected = scene.cost(scene.sampled(styles=scene.styles(count), outside="regenerate"))
        measured("injected: FLOPs a step, of a plain run's rows", injected.flops / peer.flops / count, at_most=0.99)
        for name, cost, most in (("with LoRAs alone", apart, 1.3), ("injected", injected, 1.25)):
            measured(f"{name}: kernels a step", cost.kernels / peer.kernels, at_least=1.0, at_most=most)
