"""Peak memory of each step of the pipeline on a full-size SD1.5 UNet with random weights, 512 x 512.

Started by ``tools/dev.py bench --memory``. Needs about 10 GB of RAM on a CPU and some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import torch

from tools.pack_loader import LoadedPack, load_pack, prepare_host

SD15 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "use_checkpoint": False, "use_spatial_transformer": True, "legacy": False,
    "context_dim": 768, "adm_in_channels": None, "use_linear_in_transformer": False, "use_temporal_attention": False,
    "use_temporal_resblock": False, "transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3,
}  # fmt: skip


class PeakMemory:
    """The highest memory in use while open, in GB: the GPU's when there is one, else this process's."""

    def __init__(self) -> None:
        self.gigabytes = 0.0
        self._open = True
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while True:  # at least once, also for what is over at once
            self.gigabytes = max(self.gigabytes, process.memory_info().rss / 1e9)
            if not self._open:
                return
            time.sleep(0.02)

    def __enter__(self) -> PeakMemory:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        if torch.cuda.is_available():
            self.gigabytes = torch.cuda.max_memory_allocated() / 1e9
        else:
            self._thread.join()


def full_size_model() -> Any:
    """A MODEL of SD1.5's size with small random weights."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(dict(SD15))
    config.set_inference_dtype(torch.float16 if torch.cuda.is_available() else torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    generator = torch.Generator().manual_seed(0)
    for p in model.diffusion_model.parameters():
        p.data.normal_(0, max(p[0].numel(), 1) ** -0.5 * 0.5 if p.ndim > 1 else 0.02, generator=generator)
    device = management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


class FullSizeRun:
    """The pipeline's nodes over the full-size UNet, ready to be measured one by one. Each gives its first output."""

    def __init__(self, pack: LoadedPack, steps: int) -> None:
        self.pack, self.steps = pack, steps
        self.model = full_size_model()
        generator = torch.Generator().manual_seed(1)
        self.empty, self.positive = ([[torch.randn(1, 77, 768, generator=generator), {}]] for _ in range(2))
        self.latent = {"samples": torch.randn(1, 4, 64, 64, generator=generator)}

    def invert(self) -> Any:
        """The trajectory."""
        execute = self.pack.pipeline.invert.DDIMInvert.execute
        return execute(self.model, self.latent, self.empty, self.steps, "leading", 0, False).args[0]

    def capture(self, trajectory: Any, storage: str) -> Any:
        """The default layers' features and attention at every step."""
        return self.pack.pipeline.capture.CaptureFeatures.execute(
            self.model, trajectory, self.empty, "4", "4-11", "", self.steps, self.steps, storage, "fp16"
        ).args[0]

    def sample(self, features: Any) -> Any:
        """The result's latent, injected at every step."""
        return self.pack.pipeline.sampler.InjectedLoRASampler.execute(
            self.model, features, self.positive, self.empty, 7.5, self.steps, self.steps, "adaptive", "qk", "none", 1.0
        ).args[0]


def measured(name: str, steps: int, work: Callable[[], Any]) -> Any:
    """Prints the row of one node. -> what the node gave"""
    start = time.perf_counter()
    with PeakMemory() as peak:
        output = work()
    print(f"| {name} | {peak.gigabytes:.2f} GB | {(time.perf_counter() - start) / steps:.2f} s |", flush=True)
    return output


def measure(run: FullSizeRun) -> None:
    """Prints the table, a row for each node of the pipeline and each way to store a capture."""
    steps = run.steps
    print("| step | peak memory | per step |\n|---|---|---|")
    trajectory = measured("DDIM Invert", steps, run.invert)
    for storage in ("recompute", "disk", "memory"):
        features = measured(f"Capture, {storage}", steps, partial(run.capture, trajectory, storage))
        measured(f"Sample, {storage}", steps, partial(run.sample, features))
    size = features.store.nbytes
    print(f"capture: {size / steps / 1e6:.1f} MB a step at fp16, {50 * size / steps / 1e9:.2f} GB for 50 steps")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2, help="sampling steps")
    options = parser.parse_args()
    cpu = not torch.cuda.is_available()
    host = prepare_host(os.environ["COMFYUI_PATH"], cpu)
    with torch.inference_mode():
        pack = load_pack(host)
        print(f"SD1.5 UNet, 512 x 512, {options.steps} steps, {'CPU, fp32' if cpu else torch.cuda.get_device_name()}")
        measure(FullSizeRun(pack, options.steps))


if __name__ == "__main__":
    main()
