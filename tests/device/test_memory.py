"""Memory on the GPU that is not there: what tensors take at once in each stage, beside the host's own KSampler."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import full_size
import pytest
import steps
import tiny
import torch
from absent_device import gradients

STEPS = 2
RANK = 16
MEGABYTE = 1e6


@pytest.fixture(autouse=True)
def fused(monkeypatch):
    """Attention as a GPU computes it, without a map: PyTorch's choice of a kernel would ask the driver."""

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: Any = None, **more: Any) -> Any:
        assert attn_mask is None
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, torch.is_grad_enabled())[0]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)


class Scene:
    """A model in fp16 at its own resolution, and the stages of the path."""

    def __init__(self, pack: Any, device: Any, kind: str, seed: int) -> None:
        self.pack, self.device, self.kind = pack, device, kind
        self.model = full_size.make_model(kind, torch.float16)
        self.latent = full_size.make_latent(kind, seed)
        self.empty, self.positive, self.other, self.negative = (full_size.make_prompt(kind, seed + i) for i in range(4))
        self.loras = [steps.random_lora(pack, self.model, seed + i, rank=RANK) for i in range(2)]
        self.lora_bytes = sum(2 * w.numel() for name, w in self.loras[0].items() if "alpha" not in name)

    def beside_weights(self, run: Any) -> float:
        """The most that a run takes beside the weights, which stay where they are; nothing else does."""
        left = self.device.live.restart()
        run()
        assert self.device.live.now == left
        return self.device.live.peak - left

    def plain(self, rows: int) -> Any:
        """The host's own sampler with as many rows."""
        guider = comfy.samplers.CFGGuider(self.model)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(1.0 if rows == 1 else 3.0)
        latent = self.latent["samples"].repeat(max(rows // 2, 1), 1, 1, 1)
        sigmas = torch.linspace(10.0, 0.1, STEPS + 1)
        return lambda: guider.sample(
            torch.zeros_like(latent), latent, comfy.samplers.ksampler("euler"), sigmas, disable_pbar=True
        )

    def inverted(self) -> Any:
        return steps.invert(self.pack, self.model, self.latent, self.empty, steps=STEPS)[0]

    def captured(self, trajectory: Any, **changes: Any) -> Any:
        auto = {f"{kind}_layers": "auto" for kind in ("feature", "self_attention")}
        ends = {"feature_steps": STEPS, "attention_steps": STEPS}
        settings = {"precision": "fp16", **auto, **ends, **changes}
        return steps.capture(self.pack, self.model, trajectory, self.empty, **settings)

    def one_style(self, features: Any) -> Any:
        return lambda: steps.sample(self.pack, self.model, features, self.positive, self.negative, lora=self.loras[0])

    def two_styles(self, features: Any) -> Any:
        left = torch.zeros(1, 64, 64)
        left[..., :32] = 1.0
        prompts, masks = (self.positive, self.other), (left, 1.0 - left)
        parts = zip(self.loras, prompts, masks, strict=True)
        styles = steps.chain(self.pack, *({"lora": lora, "positive": p, "mask": mask} for lora, p, mask in parts))
        return lambda: steps.sample(self.pack, self.model, features, self.positive, self.negative, styles=styles)


@pytest.mark.parametrize("kind", list(full_size.UNETS))
def test_no_stage_takes_much_more_than_a_plain_run_of_as_many_rows(pack, absent, seed, measured, kind):
    """More is: a step of the capture, and each LoRA once."""
    with absent() as device:
        scene = Scene(pack, device, kind, seed)
        trajectory = scene.inverted()
        features = scene.captured(trajectory)
        recompute = scene.captured(trajectory, storage="recompute")
        step = sum(tensor.nbytes for tensor in features.store.tensors(0))
        weights = device.live.now
        measured("weights, MB", weights / MEGABYTE)
        assert weights == pytest.approx(scene.model.model_size(), rel=0.01)
        measured("a captured step, MB", step / MEGABYTE)
        measured("a LoRA, MB", scene.lora_bytes / MEGABYTE)
        plain = {rows: scene.beside_weights(scene.plain(rows)) for rows in (1, 2, 4)}
        for rows, peak in plain.items():
            measured(f"KSampler, {rows} rows, MB", peak / MEGABYTE)
        stages = {
            "invert": (scene.inverted, 1, 0),
            "capture": (lambda: scene.captured(trajectory), 1, 0),
            "sample one style": (scene.one_style(features), 2, step + scene.lora_bytes),
            "sample one style, recompute": (scene.one_style(recompute), 2, step + scene.lora_bytes),
            "sample two styles": (scene.two_styles(features), 4, step + 2 * scene.lora_bytes),
        }
        for stage, (run, rows, more) in stages.items():
            peak = scene.beside_weights(run)
            measured(f"{stage}, MB", peak / MEGABYTE)
            measured(f"{stage}, of a plain run", (peak - more) / plain[rows], at_most=1.15)


@pytest.mark.parametrize("kind", list(full_size.UNETS))
def test_what_a_training_step_keeps(pack, absent, seed, measured, monkeypatch, kind):
    """The forward pass and all that it keeps for the backward pass, which is not run."""
    run = pack.host.training.run
    monkeypatch.setattr(torch.Tensor, "backward", gradients)
    kept = {}
    for checkpointing, words in ((False, "a training step"), (True, "a training step with checkpointing")):
        config = pack.core.training.config.TrainConfig(
            rank=RANK, alpha=1.0, steps=1, gradient_checkpointing=checkpointing
        )
        with absent() as device:
            scene, vae, side = Scene(pack, device, kind, seed), tiny.make_vae(), 8 * full_size.SIDE[kind]
            picture, progress = torch.rand(1, side, side, 3), run.Progress(1, 0)
            left = device.live.restart()
            run.train_lora(scene.model, vae, picture, scene.positive, config, torch.float16, progress)
            assert device.live.now - left == sum(w.nbytes for w in vae.first_stage_model.state_dict().values())
            copy = sum(weight.nbytes for weight in scene.model.model.diffusion_model.parameters())
            kept[checkpointing] = (device.live.peak - left - copy) / MEGABYTE
            measured(f"{words}, beside its copy of the weights, MB", kept[checkpointing])
    measured("checkpointing, of without", kept[True] / kept[False], at_most=0.4)
