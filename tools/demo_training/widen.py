"""Start an autoencoder of more channels from a trained one of fewer: what a decoder and a U-Net have learnt is kept.

The old channels are fitted to what the old encoder says, the new ones hold what the old ones miss; the decoder starts
by ignoring the new ones.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import autoencoder, patch_encoder
from .autoencoder import Batches

log = logging.getLogger(__name__)


def _old_latents(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Raw latents [B, 8, H/8, W/8] of the old encoder."""
    import comfy.taesd.taesd as taesd

    old = taesd.TAESD(latent_channels=state["taesd_decoder.1.weight"].shape[1])
    old.load_state_dict(state)
    with torch.no_grad():
        return torch.cat([old.taesd_encoder(part) for part in images.split(8)])


def _columns(x: Tensor, kernel: int) -> Tensor:  # [B, C, h, w] -> [B*h*w, C*kernel*kernel] and a one, float64
    unfolded = functional.unfold(x, kernel, padding=kernel // 2).movedim(1, -1).flatten(0, 1).double()
    return torch.cat([unfolded, torch.ones(len(unfolded), 1, dtype=torch.float64)], 1)


def _least_squares(x: Tensor, y: Tensor, ridge: float = 1e-6) -> Tensor:
    gram = x.T @ x
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, x.T @ y)


@torch.no_grad()
def start(model: Any, before: Path, batches: Batches, count: int = 240) -> int:
    """Fill `model` from the file of the old autoencoder, in place. Returns how many channels that had."""
    state = torch.load(before, map_location="cpu", weights_only=True)["average"]["values"]
    images = autoencoder.to_tensor(batches(count, 96, np.random.default_rng(11)))
    basis = patch_encoder.principal(images)
    patch_encoder.write_trunk(model.taesd_encoder, basis)
    features = patch_encoder.features(model.taesd_encoder, images)
    z = _old_latents(state, images)
    old = z.shape[1]
    inner, target = _columns(features, 3), z.movedim(1, -1).flatten(0, 2).double()
    first = _least_squares(inner, target)
    log.info("old channels, unexplained share: %s", ((inner @ first - target).var(0) / target.var(0)).numpy().round(3))

    known = _columns((inner @ first).float().reshape(len(z), *z.shape[2:], old).movedim(-1, 1), 3)
    patch = patch_encoder.patches(images).movedim(1, -1).flatten(0, 2).double()
    missing = patch - known @ _least_squares(known, patch)
    new = autoencoder.LATENT_CHANNELS - old
    directions = torch.linalg.svd(missing - missing.mean(0), full_matrices=False).Vh[:new]
    second = _least_squares(inner, missing @ directions.T)
    made = inner @ second
    second /= made.std(0)
    second[-1] -= made.mean(0) / made.std(0)
    _write_last(model.taesd_encoder[-1], torch.cat([first, second], 1))
    _copy_decoder(model.taesd_decoder, state)
    return old


def _write_last(conv: nn.Conv2d, solution: Tensor) -> None:
    conv.weight.copy_(solution[:-1].T.reshape(conv.weight.shape))
    assert conv.bias is not None
    conv.bias.copy_(solution[-1])


def _copy_decoder(decoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Zero where the new channels come in."""
    for name, value in decoder.state_dict().items():
        value.copy_(grown(state["taesd_decoder." + name], value.shape))


def grown(before: Tensor, shape: torch.Size) -> Tensor:
    """The tensor in the corner of a larger one, zero elsewhere."""
    if any(a > b for a, b in zip(before.shape, shape, strict=True)):
        raise ValueError(f"{list(before.shape)} does not fit into {list(shape)}: --before must have fewer channels")
    after = torch.zeros(shape, dtype=before.dtype)
    after[tuple(slice(size) for size in before.shape)] = before.cpu()
    return after


@torch.no_grad()
def start_unet(networks: nn.Module, before: Path) -> int:
    """Fill U-Net and text encoder from a narrower one's training file, in place. Returns its steps."""
    state = torch.load(before, map_location="cpu", weights_only=True)
    for name, value in networks.state_dict().items():
        value.copy_(grown(state["average"]["values"][name], value.shape))
    return int(state["step"])
