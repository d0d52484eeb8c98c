"""How captured tensors travel to the GPU that is not there: what crosses is exact, and so is what is left there."""

from __future__ import annotations

from typing import Any

import apply_bench
import comfy.model_management as management
import comfy.model_patcher
import comfy.samplers
import full_size
import pytest
import steps
import torch
from absent_device import Seen

STEPS = 2
NOTHING = {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"}
INJECTED = {"feature_steps": 1, "attention_steps": 1}  # adaptive: attention in both steps


class Scene:
    """SD1.5 in fp16 or another format, a capture of two steps in fp16 with the layers that are chosen for it."""

    def __init__(self, pack: Any, device: Any, seed: int, weights: torch.dtype = torch.float16) -> None:
        self.pack, self.device = pack, device
        self.model = full_size.make_model("sd15", weights)
        latent = full_size.make_latent("sd15", seed)
        self.empty, self.positive, self.negative = (full_size.make_prompt("sd15", seed + i) for i in range(3))
        self.trajectory = steps.invert(pack, self.model, latent, self.empty, steps=STEPS)[0]
        auto = {f"{kind}_layers": "auto" for kind in ("feature", "self_attention")}
        ends = {"feature_steps": STEPS, "attention_steps": STEPS}
        self.features = steps.capture(pack, self.model, self.trajectory, self.empty, precision="fp16", **auto, **ends)

    def sample(self, **settings: Any) -> torch.Tensor:
        return steps.sample(self.pack, self.model, self.features, self.positive, self.negative, **settings)

    def by_levels(self, sampler: str, sigmas: torch.Tensor, **settings: Any) -> torch.Tensor:
        """Apply Injection under a sampler of the host's."""
        model = apply_bench.injected(self.pack, self.model, self.features, **settings)
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(3.0)
        latent = self.trajectory.noise
        return guider.sample(torch.zeros_like(latent), latent, comfy.samplers.ksampler(sampler), sigmas)

    def up(self, run: Any, **settings: Any) -> int:
        """Bytes that go up for what is injected: of a run with it beside what goes up without. Nothing stays there."""
        left, bytes_up = self.device.live.now, []
        for chosen in (settings, NOTHING):
            self.device.seen = Seen()
            run(**chosen)
            bytes_up.append(self.device.seen.moved["cpu", "cuda"])
            assert self.device.live.now == left
        return bytes_up[0] - bytes_up[1]

    def step(self, step: int, features: bool) -> int:
        """Bytes of one captured step, without its features or with them."""
        held = self.features.at(step)
        return sum(t.nbytes for site, own in held.items() if features or site.kind != "feature" for t in own)

    @property
    def window(self) -> int:
        """Of what ``INJECTED`` takes."""
        return self.step(0, True) + self.step(1, False)


def four_styles(scene: Scene) -> tuple:
    masks = torch.eye(4)[:, None, :, None].expand(4, 1, 4, 64).repeat_interleave(16, 2)
    return steps.chain(scene.pack, *({"positive": scene.positive, "mask": mask} for mask in masks))


def counted(scene: Scene) -> list[int]:
    """The rows of every call of the UNet from here on."""
    rows: list[int] = []
    unet = scene.model.model.diffusion_model
    unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    return rows


def test_once_a_step_whatever_the_batches_and_the_styles(pack, absent, seed, monkeypatch):
    with absent() as device:
        scene = Scene(pack, device, seed)
        rows = counted(scene)
        assert scene.up(scene.sample, **INJECTED) == scene.window
        assert rows == [2] * 2 * STEPS
        rows.clear()
        chain = four_styles(scene)
        styles = {"styles": chain, "outside": "regenerate"}
        assert scene.up(lambda **settings: scene.sample(**styles, **settings), **INJECTED) == scene.window
        assert set(rows) == {8}
        rows.clear()
        monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0.0)
        assert scene.up(scene.sample, **INJECTED) == scene.window, "prompt and negative in calls of their own"
        assert rows == [1] * 4 * STEPS
        assert scene.up(lambda **settings: scene.sample(**styles, **settings), **INJECTED) == scene.window
        assert rows == [1] * 20 * STEPS


def test_in_its_own_format_which_the_device_casts(pack, absent, seed):
    """fp16 beside a model in fp32: half of the bytes that the model's format would be."""
    with absent() as device:
        scene = Scene(pack, device, seed, torch.float32)
        assert scene.up(scene.sample, **INJECTED) == scene.window
        assert max(t.element_size() for t in scene.features.store.tensors(0)) == 2


def test_a_step_that_several_levels_take_goes_up_once(pack, absent, seed):
    """A sampler of second order sees a level twice; levels between the two captured ones take both of them."""
    with absent() as device:
        scene = Scene(pack, device, seed)
        own = apply_bench.own_levels(scene.trajectory)
        heun = scene.up(lambda **settings: scene.by_levels("heun", own, **settings), **INJECTED)
        assert heun == scene.window
        between = torch.tensor([own[0], (own[0] * own[1]) ** 0.5, own[1], own[2]])
        whole = {"feature_steps": STEPS, "attention_steps": STEPS}
        run = lambda **settings: scene.by_levels("euler", between, **settings)  # noqa: E731
        assert scene.up(run, **whole) == scene.step(0, True) + scene.step(1, True)


@pytest.mark.parametrize("at", [1, 2])
def test_cancel_leaves_nothing_on_the_device(pack, absent, seed, at):
    with absent() as device:
        scene = Scene(pack, device, seed)
        scene.sample(**INJECTED)
        left, seen = device.live.now, []

        def press(module, args):
            seen.append(device.live.now - left)
            if len(seen) == at:
                raise management.InterruptProcessingException

        scene.model.model.diffusion_model.register_forward_pre_hook(press)
        with pytest.raises(management.InterruptProcessingException):
            scene.sample(**INJECTED)
        assert seen[-1] > scene.step(at - 1, at == 1), "it was there"
        assert device.live.now == left


GREEDY = ("all", "all", "")
PAPER = ("auto", "auto", "")
WINDOWS = {"all steps": (50, 50), "adaptive": (30, 50), "fixed": (30, 25)}
BYTES = {
    "sd15": {"greedy": 2_088_960_000, "all steps": 1_343_488_000, "adaptive": 1_330_380_800, "fixed": 675_020_800},
    "sd21": {"greedy": 4_700_160_000, "all steps": 3_022_848_000, "adaptive": 2_993_356_800, "fixed": 1_518_796_800},
    "sdxl": {"greedy": 13_762_560_000, "all steps": 8_519_680_000, "adaptive": 8_467_251_200, "fixed": 4_272_947_200},
}
"""Of 50 steps in fp16, at the model's own resolution: every layer; the layers that are chosen, and what the preset of
2026 and that of 2024 take of them (docs/figures.md)."""


@pytest.mark.parametrize("kind", list(BYTES))
def test_what_a_window_takes(pack, absent, seed, kind):
    """By count; and a step of the chosen layers is small enough to be read ahead."""
    run, found = pack.host.sampling.capture, {}
    with absent():
        model = full_size.make_model(kind, torch.float16)
        content, prompt = full_size.make_latent(kind, seed)["samples"], full_size.make_prompt(kind, seed)
        for name, layers, ends in (
            ("greedy", GREEDY, (50, 50)),
            *((name, PAPER, ends) for name, ends in WINDOWS.items()),
        ):
            request = run.request_for(model, content, run.Wanted(*layers), *ends).request
            found[name] = run.bytes_needed(model, request, content, prompt, torch.float16)
    assert found == BYTES[kind]
    assert found["all steps"] / 50 <= pack.core.injection.ahead.BOUND
