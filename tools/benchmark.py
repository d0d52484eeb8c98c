"""Speed and memory as ratios to a peer, both measured in this run. Started by ``tools/dev.py bench``.

Every row times the pack and its peer in turns (A B A B ...) and prints medians and the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from tools.benchmark_regions import region_rows
from tools.pack_loader import LoadedPack, load_pack, prepare_host

Work = Callable[[], Any]

STEPS = 20
PROMPT, NEGATIVE = "painting of <sss>", "ugly, blurry"


@dataclass(frozen=True)
class Row:
    """One comparison: what was measured, seconds of the pack and of the peer, paired ratios."""

    name: str
    peer: str
    ours: list[float]
    theirs: list[float]

    def __str__(self) -> str:
        ratio = statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        return (
            f"| {self.name} | {statistics.median(self.ours):.3f} s | {self.peer} | "
            f"{statistics.median(self.theirs):.3f} s | {ratio:.2f} |"
        )


def seconds(work: Work) -> float:
    """Wall time of one call, the device included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, ours: Work, peer: str, theirs: Work, repeats: int) -> Row:
    """Both in turns after one warm-up each."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return Row(name, peer, [a for a, _ in pairs], [b for _, b in pairs])


class Bench:
    """The demo checkpoint, a content latent and a random style LoRA, ready to be timed."""

    def __init__(self, host: Any, pack: LoadedPack, size: int, repeats: int) -> None:
        self.host, self.pack, self.repeats = host, pack, repeats
        self.model, clip, self.vae = host.CheckpointLoaderSimple().load_checkpoint("diffstyler-demo.safetensors")
        self.empty, self.positive, self.negative = (
            host.CLIPTextEncode().encode(clip, text)[0] for text in ("", PROMPT, NEGATIVE)
        )
        self.picture = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
        self.latent = host.VAEEncode().encode(self.vae, self.picture)[0]
        self.lora = self.random_lora()
        self.trajectory, self.noise, _ = self.invert()
        self.stored = self.capture("memory")

    def random_lora(self, seed: int = 1) -> dict[str, torch.Tensor]:
        """A LORA_MODEL on q, k and v of every attention."""
        core, generator = self.pack.core.lora.file, torch.Generator().manual_seed(seed)
        names = self.pack.host.training.private_copy.module_names(self.model)
        unet = self.pack.host.model.unet_of(self.model)
        lora = {
            path: core.LowRank(
                torch.randn(16, module.in_features, generator=generator) * module.in_features**-0.5,
                torch.randn(module.out_features, 16, generator=generator) * 0.05,
            )
            for path, module in unet.named_modules()
            if path.endswith(("to_q", "to_k", "to_v"))
        }
        return core.kohya_state(lora, names, 16.0)

    def invert(self) -> tuple[Any, ...]:
        """The pack's inversion, not refined and not checked. -> its three outputs"""
        execute = self.pack.pipeline.invert.DDIMInvert.execute
        return tuple(execute(self.model, self.latent, self.empty, STEPS, "leading", 0, False).args)

    def capture(self, storage: str) -> Any:
        """The pack's capture with its defaults."""
        execute = self.pack.pipeline.capture.CaptureFeatures.execute
        return execute(
            self.model, self.trajectory, self.empty, feature_layers="4", self_attention_layers="4-11",
            cross_attention_layers="", feature_end_percent=1.0, attention_end_percent=1.0, storage=storage,
            precision="fp16",
        ).args[0]  # fmt: skip

    def sample(
        self, features: Any, feature_end: float = 0.6, attention_end: float = 0.5, strength: float = 1.0, **more: Any
    ) -> Work:
        """The pack's sampler over a capture, ready to be called."""
        execute = self.pack.pipeline.sampler.InjectedLoRASampler.execute
        settings = {
            "cfg": 7.5, "lora_name": "none", "lora_strength": strength, "lora": self.lora, **more,
            "preset": {
                "preset": "custom", "feature_end_percent": feature_end, "attention_end_percent": attention_end,
                "attention_mode": "adaptive" if attention_end else "fixed", "blend": "qk",
            },
        }  # fmt: skip
        wires = {"model": self.model, "features": features, "positive": self.positive, "negative": self.negative}
        return lambda: execute(**wires, **settings)

    def ksampler(self, model: Any, positive: Any = None, negative: Any = None) -> Work:
        """The host's own sampler over the same steps."""
        sampler = self.host.KSamplerAdvanced()
        prompts = positive or self.positive, negative or self.negative
        return lambda: sampler.sample(
            model, "disable", 0, STEPS, 7.5, "euler", "ddim_uniform", *prompts, self.noise, 0, STEPS, "disable"
        )

    def rows(self) -> Iterator[Row]:
        """Every comparison, one after the other."""
        import comfy.sd

        patched, _ = comfy.sd.load_lora_for_models(self.model, None, self.lora, 1.0, 0.0)
        plain, with_lora = self.ksampler(self.model), self.ksampler(patched)
        recompute = self.capture("recompute")
        disk = self.capture("disk")
        one_row = self.ksampler_one_row()

        compared = partial(compare, repeats=self.repeats)

        yield compared("invert", self.invert, "KSampler, cfg 1", one_row)
        yield compared("capture in memory", lambda: self.capture("memory"), "KSampler, cfg 1", one_row)
        yield compared("sample, nothing injected", self.sample(self.stored, 0, 0, 0.0), "KSampler", plain)
        yield compared("sample, LoRA alone", self.sample(self.stored, 0, 0), "KSampler + Load LoRA", with_lora)
        yield compared("sample, injected from memory", self.sample(self.stored), "KSampler + Load LoRA", with_lora)
        yield compared("sample, injected from disk", self.sample(disk), "KSampler + Load LoRA", with_lora)
        yield compared("sample, injected by recompute", self.sample(recompute), "KSampler + Load LoRA", with_lora)
        for row in region_rows(self, STEPS):
            yield compared(*row)
        yield self.training()

    def ksampler_one_row(self) -> Work:
        """The host's sampler without guidance: one UNet row a step, as inversion and capture take."""
        sampler = self.host.KSamplerAdvanced()
        return lambda: sampler.sample(
            self.model, "disable", 0, STEPS, 1.0, "euler", "ddim_uniform", self.positive, self.negative, self.noise, 0,
            STEPS, "disable",
        )  # fmt: skip

    def training(self, steps: int = 20) -> Row:
        """One training step of the pack against one of the host's own trainer, set-up included in both."""
        from comfy_extras.nodes_train import TrainLoraNode

        size = self.picture.shape[1]

        def ours() -> None:
            self.pack.pipeline.train.TrainStyleLoRA.execute(
                model=self.model, vae=self.vae, style_image=self.picture, prompt=self.positive, targets="q, k, v",
                precision="fp32", preview_every=0, save=False, filename_prefix="bench", rank=16, alpha=16.0,
                steps=steps, learning_rate=2e-4, weight_decay=1e-2, seed=0, resolution=size, batch_size=1,
                gradient_checkpointing=False,
            )  # fmt: skip

        def theirs() -> None:
            TrainLoraNode.execute(
                [self.model], [self.latent], [self.positive], [1], [steps], [1], [2e-4], [16], ["AdamW"], ["MSE"], [0],
                ["fp32"], ["fp32"], [False], ["LoRA"], [False], [1], [False], ["[None]"], [False], [False],
            )  # fmt: skip

        return compare(f"train, {steps} steps", ours, "the host's Train LoRA", theirs, max(1, self.repeats // 2))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="side of the picture in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="timed pairs per row")
    options = parser.parse_args()
    cpu = not torch.cuda.is_available()
    host = prepare_host(os.environ["COMFYUI_PATH"], cpu)
    device = "CPU" if cpu else torch.cuda.get_device_name()
    with torch.inference_mode():
        bench = Bench(host, load_pack(host), options.size, options.repeats)
        print(f"demo checkpoint, {options.size} pixels, {STEPS} steps, {device}, {torch.get_num_threads()} threads")
        print("| what | DiffStyler | peer | peer's time | ratio |\n|---|---|---|---|---|")
        for row in bench.rows():
            print(row, flush=True)
        print(f"capture: {bench.stored.store.nbytes / 1e6:.1f} MB; trajectory: {bench.trajectory.megabytes:.1f} MB")


if __name__ == "__main__":
    main()
