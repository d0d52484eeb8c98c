"""Make the last latent channel the green-magenta axis, keep the other seven as they are.

A short autoencoder training finds brightness, shapes and the red-blue axis first; without this, greens and yellows
are lost. Only the encoder is trained here: towards the colour itself in the last channel, and towards what it said
before in the others, so that a diffusion model that has begun on the old latents keeps most of what it knows.
"""

import copy
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import autoencoder
from .autoencoder import Batches
from .optim import Clock, learning_rate

log = logging.getLogger(__name__)
AXIS = (-0.25, 0.5, -0.25)  # of red, green, blue
DEVIATION = 0.055  # of that axis over the training pictures, 8x8 pixels averaged


def target(images: Tensor) -> Tensor:  # [B, 3, H, W] in 0..1 -> [B, H/8, W/8], near unit deviation
    weights = torch.tensor(AXIS, device=images.device) / DEVIATION
    return torch.einsum("c,bchw->bhw", weights, functional.avg_pool2d(images, 8)).clamp(-3.5, 3.5)


def train(model: Any, batches: Batches, steps: int, lr: float = 1.5e-3) -> None:
    """In place. The decoder knows nothing of the new channel yet: fine-tune it afterwards."""
    before = copy.deepcopy(model.taesd_encoder).requires_grad_(False)
    with torch.no_grad():
        model.taesd_encoder[-1].weight[-1].mul_(0.1)
        model.taesd_encoder[-1].bias[-1].zero_()
        model.taesd_decoder[1].weight[:, -1].zero_()
    optimisers, clock, rng = autoencoder._optimisers([model.taesd_encoder]), Clock(60), np.random.default_rng(77)
    for step in range(steps):
        images = autoencoder.to_tensor(batches(8, 64, rng))
        z = autoencoder.encode(model, images)
        with torch.no_grad():
            old = autoencoder._through(before, images, autoencoder.ENCODER_BLOCKS)
        colour = (z[:, -1] - target(images)).square().mean()
        kept = (z[:, :-1] - old[:, :-1]).square().mean()
        (colour + 3 * kept).backward()
        optimisers.step(learning_rate(lr, step / steps, step, 10))
        if step % 10 == 9:
            log.info("colour axis %d: %.3f, others %.4f, %.0f s", step + 1, colour, kept, clock.share() * 60)
