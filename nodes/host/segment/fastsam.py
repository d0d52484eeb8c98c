"""ultralytics' own FastSAM on one picture after another (host_notes: on the host's device, weights read safely)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import folder_paths
import numpy as np
import torch
from torch import Tensor, nn

from ....diffstyler_core.masks.segments import Segments, in_order
from .checkpoint import read_network
from .ultralytics_call import ultralytics_at_work

DEVICES = ("cpu", "cuda", "mps", "xpu")  # what ultralytics runs on; others fall back to the CPU
ROOM = 2 * 1024**3  # bytes of device memory that FastSAM-x needs at its usual size
MOST = 300  # candidates a picture, as in FastSAM's own predictor
STRIDE = 32


class SegmentFinder:
    """FastSAM with its settings. Nothing of ultralytics' outlasts a call.

    Raises ValueError for weights that cannot be read and for settings out of bounds.
    """

    def __init__(self, weights: Path, confidence: float, iou: float, size: int) -> None:
        if size < STRIDE or size % STRIDE:
            raise ValueError(f"image_size must be a multiple of {STRIDE} and at least {STRIDE}, got {size}.")
        for name, value in (("confidence", confidence), ("iou", iou)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {value}.")
        self._settings = {"conf": confidence, "iou": iou, "imgsz": size, "max_det": MOST}
        with ultralytics_at_work() as ultralytics:
            self._fastsam = make_fastsam(ultralytics, weights)

    def find(self, picture: Tensor) -> Segments:
        """picture [H, W, 3] in 0..1 -> its candidates, at its size, on the CPU."""
        if device_name() != "cpu":
            comfy.model_management.free_memory(ROOM, comfy.model_management.get_torch_device())
        with ultralytics_at_work(), torch.inference_mode():
            found = self._fastsam.predict(
                source=[as_bgr(picture)],
                device=device_name(),
                retina_masks=True,  # masks at the picture's size
                save=False,
                verbose=False,
                project=folder_paths.get_temp_directory(),
                **self._settings,
            )
            return as_segments(found[0], picture)


def make_fastsam(ultralytics: ModuleType, weights: Path) -> Any:
    """A FastSAM whose network was read by us: its own way of loading unpickles whatever the file holds."""

    class SafelyLoadedFastSAM(ultralytics.FastSAM):  # type: ignore[name-defined]
        def _load(self, weights: str, task: str | None = None) -> None:
            self.model = ready(read_network(Path(weights)), weights)
            self.ckpt, self.task = None, "segment"
            self.ckpt_path = self.model_name = weights
            self.overrides = {"model": weights, "task": "segment"}

    return SafelyLoadedFastSAM(str(weights))


def ready(network: nn.Module, path: str) -> nn.Module:
    """A network from a file of any age as today's predictor wants it (ultralytics' load_checkpoint does the same)."""
    network.args, network.pt_path, network.task = {}, path, "segment"  # type: ignore[assignment]
    for module in network.modules():
        if isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None
    return network.eval()


def device_name() -> str:
    """The host's device as ultralytics names it."""
    device = comfy.model_management.get_torch_device()
    return str(device) if device.type in DEVICES else "cpu"


def as_bgr(picture: Tensor) -> np.ndarray:
    """[H, W, 3] in 0..1 -> uint8 in OpenCV's order of channels."""
    levels = (picture.cpu().float() * 255.0).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.numpy()[:, :, ::-1])


def as_segments(result: Any, picture: Tensor) -> Segments:
    """One picture's result; its masks are None when nothing was found."""
    if result.masks is None:
        return Segments(torch.zeros(0, *picture.shape[:2], dtype=torch.bool), torch.zeros(0))
    return in_order(result.masks.data.cpu() > 0.5, result.boxes.conf.float().cpu())
