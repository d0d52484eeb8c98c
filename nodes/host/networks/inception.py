"""Inception features for FID: the standard network, or ArtFID's, which was trained on paintings."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ....diffstyler_core.evaluation.set_features import FEATURES
from ....diffstyler_core.metrics.available import NotAvailable
from ....diffstyler_core.metrics.packages import metric_module
from .perceptual import read_weights, to_device

LEAST = 75
"""Pixels on each side that ArtFID's network needs; the standard one scales all pictures."""


class Inception:
    """An Inception v3 from a file. ``name`` says which. Raises NotAvailable for a file that is neither."""

    def __init__(self, weights: Path) -> None:
        state = read_weights(weights, lambda s: _is_art(s) or _is_standard(s), "FID's or ArtFID's Inception")
        self._art = _is_art(state)
        self.name = "ArtFID's Inception" if self._art else "FID's Inception (2015-12-05)"
        with torch.inference_mode(False):
            self._net = build_art(state) if self._art else build_standard(state)
        self._device = comfy.model_management.get_torch_device()

    def features(self, picture: Tensor) -> Tensor:
        """[2048] of a picture [H, W, 3] in 0..1.

        ArtFID's network takes it as it is (art-fid's own code); the standard one scales it to 299 x 299 as the
        original did, from 8-bit values (torch-fidelity's). Raises NotAvailable for pictures too small for the first.
        """
        if self._art and min(picture.shape[:2]) < LEAST:
            raise NotAvailable(f"{self.name} needs {LEAST} pixels on each side, got {min(picture.shape[:2])}")
        pixels = picture.to(self._device, torch.float32).movedim(-1, 0)[None]
        net: Any = to_device(self._net, self._device)
        found = net(pixels) if self._art else net((255.0 * pixels).round().clamp(0, 255).to(torch.uint8))[0]
        return found[0].float().cpu()


def _is_art(state: dict[str, Tensor]) -> bool:
    return "Mixed_7c.branch_pool.conv.weight" in state and "fc1.weight" in state


def _is_standard(state: dict[str, Tensor]) -> bool:
    return "Mixed_7c.branch_pool.conv.weight" in state and len(state.get("fc.bias", ())) == 1008


def build_art(state: dict[str, Tensor]) -> nn.Module:
    """torchvision's Inception v3, whose convolutions ArtFID's file holds, without its classes."""
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    net.fc = nn.Identity()
    return _filled(net, {key: value for key, value in state.items() if not key.startswith(("fc", "AuxLogits"))})


def build_standard(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's port of the original network. It would unpickle a file whole, so it gets tensors only."""
    checked = io.BytesIO()
    torch.save(dict(state), checked)
    checked.seek(0)
    make = metric_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    try:
        return make("inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=checked)
    except RuntimeError as error:
        raise NotAvailable(f"the Inception file lacks weights or has others ({error})") from error


def _filled(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise NotAvailable(f"the Inception file lacks weights or has others ({error})") from error
    return net.eval().requires_grad_(False)
