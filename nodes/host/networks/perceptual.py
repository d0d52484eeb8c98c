"""torchmetrics' LPIPS over a backbone from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor, nn

from ....diffstyler_core.masks.mask import resize_by_area
from ....diffstyler_core.metrics.available import NotAvailable
from ....diffstyler_core.metrics.packages import metric_module
from ....diffstyler_core.metrics.pixels import weighted_mean
from ....diffstyler_core.metrics.texture import gram

LEAST = 64
"""Pixels on each side that LPIPS' networks need."""
ROOM = 2 * 1024**3
"""Bytes of device memory that a network of these needs for one picture."""
BACKBONES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "alex": ("alexnet", "features.0.weight", (64, 3, 11, 11)),
    "vgg": ("vgg16", "features.28.weight", (512, 512, 3, 3)),
    "squeeze": ("squeezenet1_1", "features.3.squeeze.weight", (16, 64, 1, 1)),
}
"""By LPIPS' name: torchvision's name, and a weight that tells its file from the others'."""


class Lpips:
    """torchmetrics' LPIPS (Zhang et al. 2018, version 0.1) over a backbone from a file. Raises NotAvailable without."""

    def __init__(self, weights: Path) -> None:
        self.backbone, state = read_backbone(weights)
        self._net = build_lpips(self.backbone, state)
        self._device = comfy.model_management.get_torch_device()

    def distance(self, picture: Tensor, reference: Tensor, mask: Tensor | None) -> float:
        """0 or more, lower is closer. Pictures [H, W, 3] in 0..1; mask [H, W]: mean of the map there, by its weight.

        The networks see beyond the mask's edge, so the figure in a mask is not quite that of a crop.
        """
        net = self._ready(picture)
        net.spatial = mask is not None
        found = net(*(self._batch(x) for x in (picture, reference)), normalize=True)[0, 0].float().cpu()
        return weighted_mean(found, torch.ones(1, 1) if mask is None else mask.cpu())

    def grams(self, picture: Tensor, mask: Tensor | None) -> list[Tensor | None]:
        """Gram matrix of each of the backbone's layers that LPIPS looks at; the mask is resized by area."""
        net = self._ready(picture)
        layers = [layer[0].float().cpu() for layer in net.net(net.scaling_layer(2 * self._batch(picture) - 1))]
        weight = torch.ones(picture.shape[:2]) if mask is None else mask.cpu()
        return [gram(layer, resize_by_area(weight, *layer.shape[1:])) for layer in layers]

    def _ready(self, picture: Tensor) -> Any:
        if min(picture.shape[:2]) < LEAST:
            raise NotAvailable(f"it needs {LEAST} pixels on each side")
        return to_device(self._net, self._device)

    def _batch(self, picture: Tensor) -> Tensor:
        return picture.to(self._device, torch.float32).movedim(-1, 0)[None]


def to_device(net: nn.Module, device: torch.device) -> nn.Module:
    """The network there, after the host made room for it."""
    if next(net.parameters()).device != device and device.type != "cpu":
        comfy.model_management.free_memory(ROOM, device)
    return net.to(device)


def read_weights(path: Path, fits: Callable[[dict[str, Tensor]], bool], what: str) -> dict[str, Tensor]:
    """A file's tensors, read without running anything that it holds. Raises NotAvailable for any other file."""
    try:
        state = comfy.utils.load_torch_file(str(path), safe_load=True)
        if fits(state):
            return state
        reason = "it holds other weights"
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
    raise NotAvailable(f"{path.name!r} cannot be read as {what} ({reason})")


def read_backbone(path: Path) -> tuple[str, dict[str, Tensor]]:
    """(LPIPS' name of the network, the weights of its convolutions)."""

    def kind(state: dict[str, Tensor]) -> str | None:
        fitting = (k for k, (_, key, shape) in BACKBONES.items() if key in state and state[key].shape == shape)
        return next(fitting, None)

    state = read_weights(path, lambda s: kind(s) is not None, "torchvision's AlexNet, VGG16 or SqueezeNet 1.1")
    features = {key.removeprefix("features."): v for key, v in state.items() if key.startswith("features.")}
    return str(kind(state)), features


def build_lpips(backbone: str, state: dict[str, Tensor]) -> Any:
    """LPIPS with its own linear weights, which come with torchmetrics. Nothing is downloaded (pnet_rand)."""
    with torch.inference_mode(False):
        net = metric_module("torchmetrics.functional.image.lpips")._LPIPS(net=backbone, pnet_rand=True)
        own = {_layer(key): key for key in net.net.state_dict()}  # the slices keep the layers' numbers
        try:
            net.net.load_state_dict({own[key]: state[key].float() for key in own})
        except (KeyError, RuntimeError) as error:
            raise NotAvailable(f"the backbone's file lacks weights or has others ({error})") from error
    return net.eval()


def _layer(key: str) -> str:
    """'slice2.3.weight' or 'slices.1.3.squeeze.weight' -> the number and name in torchvision's features."""
    parts = key.split(".")
    return ".".join(parts[2:] if parts[0] == "slices" else parts[1:])
