"""torchmetrics' SSIM and LPIPS. The package is imported when first needed, and its changes to others are undone."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor, nn

from ....diffstyler_core.masks.mask import resize_by_area
from ....diffstyler_core.metrics.pixels import NotAvailable, inner, require_alike, weighted_mean
from ....diffstyler_core.metrics.texture import gram

WINDOW = 5
"""Pixels to each side of SSIM's Gaussian window (11 x 11, deviation 1.5)."""
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


def library(name: str) -> Any:
    """A module of torchmetrics or torch_fidelity. Raises NotAvailable when the package is not installed.

    torchmetrics gives numpy, PIL and scipy.signal old names back and logs on its own: all of that is undone, as other
    packs may look for those names.
    """
    if name in sys.modules:
        return sys.modules[name]
    package = name.split(".")[0]
    spots = [("numpy", "Inf"), ("PIL", "PILLOW_VERSION"), ("scipy.signal", "hamming")]
    absent = [spot for spot in spots if not hasattr(sys.modules.get(spot[0]), spot[1])]
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise NotAvailable(
            f"the package {package.replace('_', '-')} is not installed ({error}). Install the pack's requirements.txt"
        ) from error
    for module, attribute in absent:
        if hasattr(sys.modules.get(module), attribute):
            delattr(sys.modules[module], attribute)
    logging.getLogger(package).handlers.clear()
    return found


def ssim(picture: Tensor, reference: Tensor, weight: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) by torchmetrics, mean of the colour channels, -1..1. Higher is closer.

    Pictures [H, W, 3] in 0..1, weight [H, W]. Only windows that lie wholly in the region count, as in scikit-image.
    Raises ValueError for shapes that differ, NotAvailable where no 11 x 11 pixels lie in the region.
    """
    require_alike(picture, reference, weight)
    counted = inner(weight.float(), WINDOW)
    if not counted.any():
        raise NotAvailable("the region holds no 11 x 11 pixels")
    measure = library("torchmetrics.functional.image.ssim").structural_similarity_index_measure
    a, b = (x.float().movedim(-1, 0)[None] for x in (picture, reference))
    similar = measure(a, b, data_range=1.0, return_full_image=True)[1][0]  # [3, H, W], its edge from mirrored pixels
    return weighted_mean(similar[:, WINDOW:-WINDOW, WINDOW:-WINDOW].mean(0), counted)


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
        net = library("torchmetrics.functional.image.lpips")._LPIPS(net=backbone, pnet_rand=True)
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
