"""The autoencoder: the host's TAESD with sixteen latent channels, trained on crops."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import patch_encoder
from .optim import Average, Clock, Optimisers, learning_rate
from .workplace import Keeper, device, save, use_host

log = logging.getLogger(__name__)
LATENT_CHANNELS = 16
VAE_SCALE = 0.8  # TAESD's own `vae_scale`: about the deviation of the raw latents of the training pictures
Batches = Callable[[int, int, np.random.Generator], NDArray[np.uint8]]  # (count, size, rng) -> [B, size, size, 3]


def build() -> Any:
    """TAESD with weights (the host's layers come without): blocks start as exact identities."""
    use_host()
    import comfy.taesd.taesd as taesd

    model = taesd.TAESD(latent_channels=LATENT_CHANNELS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 4:
                p.normal_(0, p[0].numel() ** -0.5, generator=generator)
            elif p.ndim == 1:
                p.zero_()
        for block in (m for m in model.modules() if isinstance(m, taesd.Block)):
            block.conv[-1].weight.zero_()
            for part in (block.conv[0], block.conv[2]):
                part.weight.mul_(2**0.5)
        model.taesd_decoder[-1].weight.mul_(0.3)
        model.taesd_decoder[-1].bias.fill_(0.5)
    for p in model.parameters():
        p.requires_grad_(p.ndim > 0)
    return model.to(device(), memory_format=torch.channels_last)


def encode(model: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1 -> [B, 16, H/8, W/8]: as the whole encoder does, without the cost of its first layers."""
    return patch_encoder.head(model.taesd_encoder)(patch_encoder.features(model.taesd_encoder, images))


def to_tensor(batch: NDArray[np.uint8]) -> Tensor:  # [B, 3, H, W] in 0..1
    tensor = torch.from_numpy(np.array(batch)).to(device()).permute(0, 3, 1, 2).float() / 255
    return tensor.contiguous(memory_format=torch.channels_last)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def picture_loss(out: Tensor, target: Tensor) -> Tensor:
    """Squared error for fidelity, absolute error of values and of their differences for sharp edges."""
    loss = 4 * (out - target).square().mean() + 0.3 * (out - target).abs().mean()
    pairs = zip(_differences(out), _differences(target), strict=True)
    return loss + 0.3 * sum(((a - b).abs().mean() for a, b in pairs), torch.zeros((), device=out.device))


def latent_loss(latent: Tensor) -> Tensor:
    """Holds each channel near mean 0 and deviation 1, inside the reach of the decoder's tanh(x/3)*3."""
    mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    return mean.square().mean() + (std - 1).square().mean()


def _optimisers(parts: list[Any]) -> Optimisers:
    named = [p for part in parts for p in part.parameters() if p.requires_grad]
    matrices = [p for p in named if p.ndim == 4 and min(p.shape[:2]) > 8]
    chosen = {id(p) for p in matrices}
    return Optimisers(matrices, [p for p in named if id(p) not in chosen])


@torch.no_grad()
def latent_statistics(model: Any, batches: Batches, count: int) -> tuple[Tensor, Tensor]:
    latents = encode(model, to_tensor(batches(count, 96, np.random.default_rng(1))))
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


@torch.no_grad()
def bake_normalisation(model: Any, mean: Tensor, std: Tensor) -> None:
    """Make latents zero-mean, unit-std through the encoder's last convolution; undo it in the decoder's first.

    The decoder's clamp comes before its first convolution, so the undoing is near, not exact.
    """
    last, first = model.taesd_encoder[-1], model.taesd_decoder[1]
    last.weight.div_(std[:, None, None, None])
    last.bias.copy_((last.bias - mean) / std)
    first.bias.add_((first.weight * mean[None, :, None, None]).sum((1, 2, 3)))
    first.weight.mul_(std[None, :, None, None])


class Training:
    """Two phases in one file: the pair (with the encoder), then the decoder alone on frozen latents."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, build()
        self.phase, self.step, self.spent = "pair", 0, 0.0
        self.anchor: tuple[Tensor, Tensor] | None = None  # [C, 64, 3, 3] and [C], see `hold`
        self._start_phase()
        if path.exists():
            self._load(torch.load(path, map_location=device(), weights_only=True))

    def _start_phase(self) -> None:
        pair = [patch_encoder.head(self.model.taesd_encoder), self.model.taesd_decoder]
        self.optimisers = _optimisers(pair if self.phase == "pair" else pair[1:])
        self.average = Average(self.model, 0.98)

    def _load(self, state: dict[str, Any]) -> None:
        self.phase, self.step, self.spent = state["phase"], state["step"], state["spent"]
        self.model.load_state_dict(state["model"])
        self._start_phase()
        self.anchor = state["anchor"]
        self.optimisers.load_state_dict(state["optimisers"])
        self.average.load_state_dict(state["average"])
        log.info("autoencoder resumed: %s, step %d, %.0f s", self.phase, self.step, self.spent)

    def _store(self) -> None:
        save(self.path, {
            "phase": self.phase, "step": self.step, "spent": self.spent, "model": self.model.state_dict(),
            "anchor": self.anchor, "optimisers": self.optimisers.state_dict(), "average": self.average.state_dict(),
        })  # fmt: skip

    def _loss(self, images: Tensor) -> tuple[Tensor, float]:
        with torch.set_grad_enabled(self.phase == "pair"):
            latent = encode(self.model, images)
        noise = 0.05 if self.phase == "pair" else 0.02
        noisy = latent + noise * torch.randn_like(latent)
        out = self.model.taesd_decoder(noisy)
        loss = picture_loss(out, images)
        if self.phase == "pair":
            loss = loss + 0.02 * latent_loss(latent) + 0.03 * self._drift(images, latent)
        return loss, float((out.detach().clamp(0, 1) - images).square().mean())

    def begin(self, batches: Batches) -> None:
        """Give the encoder its first layers: the principal components of what it will see."""
        images = to_tensor(batches(240, 96, np.random.default_rng(11)))
        patch_encoder.write_trunk(self.model.taesd_encoder, patch_encoder.principal(images))

    def hold(self, channels: int) -> None:
        """Keep the first channels near what the patches' components say of them now, through a linear layer."""
        last = self.model.taesd_encoder[-1]
        self.anchor = last.weight.detach()[:channels].clone(), last.bias.detach()[:channels].clone()

    def _drift(self, images: Tensor, latent: Tensor) -> Tensor:
        if self.anchor is None:
            return torch.zeros((), device=latent.device)
        features = patch_encoder.features(self.model.taesd_encoder, images)
        held = torch.nn.functional.conv2d(features, *self.anchor, padding=1)
        return (latent[:, : held.shape[1]] - held).square().mean()

    def run(self, batches: Batches, minutes: float, lr: float, check: Callable[[nn.Module], str]) -> bool:
        """Train the current phase for `minutes` in all, small crops first; False when interrupted."""
        clock, keeper = Clock(minutes, self.spent), Keeper(self._store)
        rng = np.random.default_rng([self.step, self.phase == "pair"])
        error = 0.02
        while (share := clock.share()) < 1:
            size = 64 if share < 0.6 else 96
            loss, mse = self._loss(to_tensor(batches(8, size, rng)))
            loss.backward()
            self.optimisers.step(learning_rate(lr, share, self.step))
            self.average.update(self.model)
            self.step, self.spent = self.step + 1, clock.spent
            error += 0.05 * (mse - error)
            if self.step % 40 == 0:
                log.info("%s %d  %.0f%%  psnr %.2f  %s", self.phase, self.step, 100 * share,
                         -10 * np.log10(error), check(self.model) if self.step % 160 == 0 else "")  # fmt: skip
            if keeper.tick():
                return False
        self.model.load_state_dict(self.average.values)
        self._store()
        return True

    def freeze_encoder(self, batches: Batches) -> None:
        """From the pair to the decoder alone. Held channels keep their scale: a U-Net knows it."""
        if self.anchor is None:
            bake_normalisation(self.model, *latent_statistics(self.model, batches, 48))
        self.phase = "decoder"
        self.restart_phase()

    def restart_phase(self) -> None:
        """Fresh optimisers, average and clock for the weights as they are; stored."""
        self.step, self.spent = 0, 0.0
        self._start_phase()
        self._store()


@torch.no_grad()
def reconstruct(model: Any, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] through encoder and decoder."""
    out = model.taesd_decoder(model.taesd_encoder(to_tensor(image[None])))[0].clamp(0, 1)
    return (out.permute(1, 2, 0) * 255).round().byte().cpu().numpy()


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))
