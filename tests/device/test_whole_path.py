"""The pack's whole path through the real host at full size, on a GPU that is not there.

Of every stage: no operation over two devices (it would be refused), no product in fp32 where half is meant, no tensor
of hidden size in fp32, and not a byte across that is not meant to go.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import apply_bench
import full_size
import pytest
import steps
import tiny
import torch
from absent_device import Seen, gradients
from runs import two_styles

STEPS = 2
RANK = 3


class Case(NamedTuple):
    kind: str
    weights: torch.dtype
    computing: torch.dtype | None = None

    @property
    def half(self) -> torch.dtype:
        return self.computing or self.weights


CASES = {
    "sd15 fp16": Case("sd15", torch.float16),
    "sd21 v bf16": Case("sd21", torch.bfloat16),
    "sdxl fp16": Case("sdxl", torch.float16),
}
CAST = {
    "sd15 fp16 computed in bf16": Case("sd15", torch.float16, torch.bfloat16),
    "sd15 fp8 computed in fp16": Case("sd15", torch.float8_e4m3fn, torch.float16),
}


class Scene:
    """A model at full size, prompts, two LoRAs, and the stages of the path."""

    def __init__(self, pack: Any, device: Any, case: Case, seed: int) -> None:
        self.pack, self.device, self.case, self.seed = pack, device, case, seed
        self.model = full_size.make_model(*case)
        self.latent = full_size.make_latent(case.kind, seed)
        self.empty, *self.prompts, self.negative = (full_size.make_prompt(case.kind, seed + i) for i in range(4))
        self.loras = [steps.random_lora(pack, self.model, seed + i, rank=RANK) for i in range(2)]

    def seen(self) -> Seen:
        """What happened since it was asked last."""
        seen, self.device.seen = self.device.seen, Seen()
        return seen

    def check(
        self, seen: Seen, measured: Any, stage: str, up: float, down: float, rows: int, again: float = 0.0
    ) -> None:
        """up, down: bytes that are meant to cross, beside the small. rows: of the largest batch.

        again: what may go up once more, where the host cuts a step's rows into batches in two ways.
        """
        assert set(seen.products) == {frozenset({self.case.half})}, f"{stage}: {seen.products}"
        numbers = self.latent["samples"].numel()
        assert seen.widest <= rows * numbers, f"{stage}: an fp32 tensor of {seen.widest} numbers"
        to, back = seen.moved["cpu", "cuda"] - up, seen.moved["cuda", "cpu"] - down
        measured(f"{stage}: bytes up beside what is meant", to, at_least=0, at_most=self.small(rows) + again)
        measured(f"{stage}: bytes down beside what is meant", back, at_least=0, at_most=8 * STEPS * 4 * numbers)
        measured(f"{stage}: numbers read back per step", seen.waits / STEPS, at_most=12)

    def inverted(self) -> Any:
        return steps.invert(self.pack, self.model, self.latent, self.empty, steps=STEPS)[0]

    def captured(self, trajectory: Any) -> Any:
        auto = {f"{kind}_layers": "auto" for kind in ("feature", "self_attention")}
        ends = {"feature_steps": STEPS, "attention_steps": STEPS}
        return steps.capture(self.pack, self.model, trajectory, self.empty, precision="fp16", **auto, **ends)

    def sampled(self, features: Any) -> torch.Tensor:
        chosen = {
            "styles": two_styles(self.pack, self.loras, self.prompts, 64),
            "outside": "regenerate",
            "feature_steps": 1,
            "attention_steps": 1,
        }
        return steps.sample(self.pack, self.model, features, self.prompts[0], self.negative, **chosen)

    def small(self, rows: int) -> float:
        """Bytes that prompts, latents, masks and noise levels may take to the device, one and a half times a row."""
        return 1.5 * rows * STEPS * (self.latent["samples"].nbytes + self.empty[0][0].nbytes)

    def lora_bytes(self) -> int:
        """The LoRAs' factors in the number format that is computed in. The first one, in both styles, goes up once."""
        size = self.case.half.itemsize
        return sum(w.numel() * size for lora in self.loras for name, w in lora.items() if "alpha" not in name)


def taken_by(features: Any) -> int:
    """Bytes that a run takes of a capture: features in its first step of two, attention in both."""
    sites = [features.request.sites_at(step) for step in range(STEPS)]
    taken = 0
    for step in range(STEPS):
        tensors = features.at(step)
        for site in sites[step]:
            if site.kind != "feature" or step == 0:
                taken += sum(tensor.nbytes for tensor in tensors[site])
    return taken


@pytest.mark.parametrize("case", CASES)
def test_invert_capture_regions_switch_and_apply(pack, absent, seed, measured, case):
    with absent() as device:
        scene = Scene(pack, device, CASES[case], seed)
        scene.seen()
        trajectory = scene.inverted()
        scene.check(scene.seen(), measured, "invert", scene.model.model_size(), 0, 1)
        features = scene.captured(trajectory)
        held = [tensor for step in range(STEPS) for tensor in features.store.tensors(step)]
        assert {(t.device.type, t.dtype) for t in held} == {("cpu", torch.float16)}
        scene.check(scene.seen(), measured, "capture", 0, features.store.nbytes, 1)
        samples = scene.sampled(features)
        assert samples.device.type == "cpu"
        taken = taken_by(features)
        scene.check(
            scene.seen(), measured, "regions and a switch", taken + scene.lora_bytes(), 0, 6, scene.lora_bytes()
        )
        model = apply_bench.styled(
            pack,
            scene.model,
            features,
            two_styles(pack, scene.loras, scene.prompts, 64),
            feature_steps=1,
            attention_steps=1,
        )
        apply_bench.at_own_levels(model, trajectory, scene.prompts[0], scene.negative)
        scene.check(scene.seen(), measured, "Apply Styles", taken + scene.lora_bytes(), 0, 4, scene.lora_bytes())
        model = apply_bench.injected(pack, scene.model, features, feature_steps=1, attention_steps=1)
        apply_bench.at_own_levels(model, trajectory, scene.prompts[0], scene.negative)
        scene.check(scene.seen(), measured, "Apply Injection", taken, 0, 2)


@pytest.mark.parametrize("case", CAST)
def test_weights_of_another_kind_than_the_computing(pack, absent, seed, measured, case):
    """The host casts each weight for its call; what the pack adds goes along with that."""
    with absent() as device:
        scene = Scene(pack, device, CAST[case], seed)
        features = scene.captured(scene.inverted())
        fetched = scene.seen().moved["cpu", "cuda"]
        assert {t.dtype for step in range(STEPS) for t in features.store.tensors(step)} == {torch.float16}
        scene.sampled(features)
        seen = scene.seen()
        assert set(seen.products) == {frozenset({scene.case.half})}, seen.products
        assert seen.widest <= 6 * scene.latent["samples"].numel()
        meant = taken_by(features) + scene.lora_bytes()
        again = seen.moved["cpu", "cuda"] - meant
        measured("bytes up beside what is meant", again, at_least=0, at_most=scene.small(6))
        measured("bytes up while inverting and capturing, in the model's size", fetched / scene.model.model_size())


@pytest.mark.parametrize(("kind", "dtype"), [("sd15", torch.bfloat16), ("sdxl", torch.float16)], ids=["sd15", "sdxl"])
def test_a_training_step(pack, absent, seed, measured, monkeypatch, kind, dtype):
    """The LoRA is trained in fp32 beside a network in half: its own products alone are in fp32, and the VAE's."""
    run = pack.host.training.run
    monkeypatch.setattr(torch.Tensor, "backward", gradients)
    config = pack.core.training.config.TrainConfig(rank=RANK, alpha=3.0, steps=1)
    with absent() as device:
        scene = Scene(pack, device, Case(kind, torch.float16), seed)
        picture, vae = torch.rand(1, 8 * full_size.SIDE[kind], 8 * full_size.SIDE[kind], 3), tiny.make_vae()
        scene.seen()
        progress = run.Progress(1, 0)
        trained, _ = run.train_lora(scene.model, vae, picture, scene.prompts[0], config, dtype, progress)
        seen = scene.seen()
        assert (len(trained.losses), trained.stopped_at) == (1, None)
        assert {part.device.type for pair in trained.lora.values() for part in pair} == {"cpu"}
        assert frozenset({dtype}) in seen.products
        assert set(seen.products) <= {frozenset({dtype}), frozenset({torch.float32}), frozenset({torch.bfloat16})}
        others = [shapes for shapes in seen.wide if not any(RANK in shape for shape in shapes)]
        assert not others, f"products in fp32 without the LoRA: {others[:3]}"
        measured("products in fp32, of each LoRA layer", len(seen.wide) / len(trained.lora))
        up = seen.moved["cpu", "cuda"] - sum(p.numel() for p in scene.model.model.diffusion_model.parameters()) * 2
        measured("bytes up beside the private copy", up, at_least=0)
