"""What the exported file does, measured through the host's stock loader."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import autoencoder, latents, photographs, unet
from .export import FILE
from .workplace import demo_model, use_host

log = logging.getLogger(__name__)
PROMPTS = ("", "", "photo of mountains", "photo of a face", "oil painting of the sea", "hatching drawing of houses")


class Stock:
    """The file behind the host's CheckpointLoaderSimple, CLIPTextEncode, VAEEncode and VAEDecode."""

    def __init__(self) -> None:
        use_host()
        import comfy.model_management as management

        import nodes

        self.nodes: Any = nodes  # the host's module, not the pack's folder
        demo_model().register_demo_model()
        self.model, self.clip, self.vae = self.nodes.CheckpointLoaderSimple().load_checkpoint(FILE)[:3]
        management.load_models_gpu([self.model])
        self.net = self.model.model

    def encode(self, image: np.ndarray) -> Tensor:  # [H, W, 3] uint8 -> [1, 16, H/8, W/8]
        pixels = torch.from_numpy(image.astype(np.float32) / 255)[None]
        return self.nodes.VAEEncode().encode(self.vae, pixels)[0]["samples"]

    def decode(self, latent: Tensor) -> list[np.ndarray]:
        pixels = self.nodes.VAEDecode().decode(self.vae, {"samples": latent})[0]
        return list((pixels.clamp(0, 1) * 255).round().byte().cpu().numpy())

    def prompt(self, *texts: str) -> Tensor:  # [B, 77, 64]
        return torch.cat([self.nodes.CLIPTextEncode().encode(self.clip, text)[0][0][0] for text in texts])

    def velocity(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The network's prediction, a timestep for each row."""
        model = self.net.diffusion_model
        weight = next(model.parameters())
        return model(x.to(weight), t.to(weight.device).float(), context=context.to(weight)).float().to(x.device)

    def eps(self, x: Tensor, level: float, t: int, context: Tensor) -> Tensor:
        """The noise that it sees in x of the given abar: eps = sqrt(abar) v + sqrt(1 - abar) x."""
        return level**0.5 * self.velocity(x, torch.full((len(x),), t), context) + (1 - level) ** 0.5 * x


def _move(x: Tensor, eps: Tensor, source: float, target: float) -> Tensor:
    """DDIM's step between two levels abar (Song et al. 2021, eq. 12, sigma = 0)."""
    x0 = (x - (1 - source) ** 0.5 * eps) / source**0.5
    return target**0.5 * x0 + (1 - target) ** 0.5 * eps


def timesteps(steps: int) -> list[int]:
    """1, 21, ..., 981 for 50 steps."""
    return [1 + k * (unet.STEPS // steps) for k in range(steps)]


def invert(stock: Stock, x: Tensor, context: Tensor, steps: int = 50, refinements: int = 0) -> Tensor:
    """DDIM inversion with an empty prompt. Plain, the network sees the level it leaves and the time it goes to.

    Each refinement asks it again where the step came out, for the noise to go there with.
    """
    abar, before = unet.alphas(), float(unet.alphas()[0])
    for t in timesteps(steps):
        level = float(abar[t])
        moved = _move(x, stock.eps(x, before, t, context), before, level)
        for _ in range(refinements):
            moved = _move(x, stock.eps(moved, level, t, context), before, level)
        x, before = moved, level
    return x


def sample(
    stock: Stock, x: Tensor, context: Tensor, empty: Tensor | None = None, cfg: float = 1.0, steps: int = 50
) -> Tensor:
    """DDIM from noise to picture, with classifier-free guidance where `empty` is given."""
    abar, levels = unet.alphas(), timesteps(steps)[::-1]
    for t, after in zip(levels, [*levels[1:], 0], strict=True):
        level = float(abar[t])
        eps = stock.eps(x, level, t, context)
        if empty is not None and cfg != 1.0:
            eps = cfg * eps + (1 - cfg) * stock.eps(x, level, t, empty)
        x = _move(x, eps, level, float(abar[after]))
    return x


def _denoising_loss(stock: Stock, work: Path) -> float:
    pictures, captions = latents.held_out_pictures(work / "wheels")
    z = torch.cat([stock.encode(p) for p in pictures])
    g, total, draws = torch.Generator().manual_seed(1234), 0.0, 4
    context = stock.prompt(*captions)
    for k in range(draws):
        t = torch.arange(len(z)) * unet.STEPS // len(z) + k * unet.STEPS // (draws * len(z))
        order = torch.randperm(len(z), generator=g)
        noise = torch.randn(z.shape, generator=g)
        out = stock.velocity(unet.add_noise(z, noise, t[order]), t[order], context)
        total += float((out - unet.velocity(z, noise, t[order])).square().mean())
    return total / draws


@torch.inference_mode()
def measure(work: Path, sheet: Path) -> dict[str, Any]:
    """Figures for model.json, and a picture sheet of reconstructions and samples."""
    stock, images = Stock(), {}
    for photo in photographs.HELD_OUT:
        images[Path(photo.member).stem] = photographs.centre(photographs.load(photo, work / "wheels"), 256)
    decoded = {name: stock.decode(stock.encode(image))[0] for name, image in images.items()}
    quality = {name: round(autoencoder.psnr(images[name], decoded[name]), 2) for name in images}
    empty = stock.prompt("")
    z, context = torch.cat([stock.encode(image) for image in images.values()]), empty.expand(len(images), -1, -1)
    back = {n: stock.decode(sample(stock, invert(stock, z, context, refinements=n), context)) for n in (0, 1, 3)}
    inversion = {
        f"{n} refinements": {k: round(autoencoder.psnr(decoded[k], b), 2) for k, b in zip(images, made, strict=True)}
        for n, made in back.items()
    }
    noise = torch.randn(len(PROMPTS), autoencoder.LATENT_CHANNELS, 32, 32, generator=torch.Generator().manual_seed(5))
    guided = empty.expand(len(PROMPTS), -1, -1)
    out = stock.decode(sample(stock, noise, stock.prompt(*PROMPTS), guided, 3.0, steps=25))
    _sheet(sheet, [list(images.values()), list(decoded.values()), back[0], out[:3], out[3:]])
    return {
        "autoencoder_psnr_db": {**quality, "mean": round(sum(quality.values()) / len(quality), 2)},
        "denoising_loss": round(_denoising_loss(stock, work), 4),
        "ddim_50_inversion_psnr_db": inversion,
    }


def _sheet(path: Path, rows: list[list[np.ndarray]]) -> None:
    height, width = rows[0][0].shape[:2]
    page = np.full((height * len(rows), width * max(map(len, rows)), 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            page[r * height : (r + 1) * height, c * width : (c + 1) * width] = image
    Image.fromarray(page).save(path, quality=88)


def record(folder: Path, figures: dict[str, Any]) -> None:
    """Put measured figures into model.json."""
    path = folder / "model.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    about["measured"] = figures
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
