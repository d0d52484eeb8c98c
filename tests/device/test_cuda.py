"""The real thing where there is a GPU: a host of its own, weights kept in each of its ways, against fp32 on the CPU.

The same script with ``--cpu`` shows on any machine that it is the pack's path that runs there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import safetensors.torch
import torch

SCRIPT = Path(__file__).with_name("in_own_process.py")
WAYS = {
    "dynamic VRAM": [],
    "no dynamic VRAM": ["--disable-dynamic-vram"],
    "nothing kept on the GPU": ["--disable-dynamic-vram", "--novram"],
}
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine")


def in_own_process(folder: Path, kind: str, seed: int, dtype: str, arguments: list[str]) -> runs.Results:
    """The results of the path in a host that was started with these arguments."""
    (folder / "custom_nodes").mkdir()  # the host looks for what it is to start first
    file = folder / "results.safetensors"
    settings = [kind, str(seed), dtype, str(file), "--base-directory", str(folder), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *settings],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return safetensors.torch.load_file(file)


def on_the_cpu(pack, kind: str, seed: int) -> runs.Results:
    return runs.Path(pack, kind, seed).run(runs.make_model(kind, seed))


def test_a_host_of_its_own_on_the_cpu_gives_what_this_one_gives(pack, seed, measured, tmp_path):
    theirs = on_the_cpu(pack, "sd15", seed)
    ours = in_own_process(tmp_path, "sd15", seed, "float32", ["--cpu"])
    assert ours.keys() == theirs.keys()
    for stage in theirs:
        measured(f"{stage}, relative", runs.gap(ours[stage], theirs[stage]), at_most=1e-4)


@pytest.mark.cuda
@on_a_gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "dtype", "bound"), [("sd15", "float32", 1e-2), ("sd15", "float16", 4e-2), ("sdxl", "bfloat16", 0.3)]
)
def test_a_gpu_gives_what_the_cpu_gives(pack, seed, measured, tmp_path, kind, dtype, bound, way):
    """fp32 on a GPU has convolutions in TF32, where the host leaves PyTorch's own choice."""
    theirs = on_the_cpu(pack, kind, seed)
    for stage, ours in in_own_process(tmp_path, kind, seed, dtype, WAYS[way]).items():
        assert torch.isfinite(ours).all(), stage
        measured(f"{stage}, relative", runs.gap(ours, theirs[stage]), at_most=bound)
