"""What the exported file does: measured through the host's stock nodes and the pack's own inversion."""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.pack_loader import load_pack

from . import autoencoder, latents, photographs, unet
from .export import FILE
from .workplace import use_host

log = logging.getLogger(__name__)
PROMPTS = (
    "", "", "photo of mountains",
    "photo of a face", "photo of a cat", "photo of houses",
    "oil painting of the sea", "mosaic of mountains", "hatching drawing of houses",
)  # fmt: skip


class Inversion(NamedTuple):
    """DDIM Invert's settings."""

    steps: int
    refinements: int = 0
    spacing: str = "leading"


INVERSIONS = {
    "50 steps": Inversion(50),
    "50 steps, 1 refinement": Inversion(50, 1),
    "50 steps, 3 refinements": Inversion(50, 3),
    "250 steps": Inversion(250),
    "50 steps, forward 1000": Inversion(50, spacing="forward 1000"),
}


class Stock:
    """The file behind the host's stock nodes, and the pack as the host loads it."""

    def __init__(self) -> None:
        use_host()
        import nodes

        self.nodes: Any = nodes  # the host's module, not the pack's folder
        self.pack = load_pack(nodes)
        self.model, self.clip, self.vae = self.nodes.CheckpointLoaderSimple().load_checkpoint(FILE)[:3]

    def encode(self, image: np.ndarray) -> Tensor:  # [H, W, 3] uint8 -> [1, 16, H/8, W/8]
        pixels = torch.from_numpy(image.astype(np.float32) / 255)[None]
        return self.nodes.VAEEncode().encode(self.vae, pixels)[0]["samples"]

    def decode(self, latent: Tensor) -> np.ndarray:  # [1, 16, h, w] -> [8 h, 8 w, 3] uint8
        pixels = self.nodes.VAEDecode().decode(self.vae, {"samples": latent})[0]
        return (pixels[0].clamp(0, 1) * 255).round().byte().cpu().numpy()

    def prompt(self, text: str) -> Any:
        return self.nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def there_and_back(self, latent: Tensor, how: Inversion) -> np.ndarray:
        """The latent inverted with an empty prompt and sampled back, as DDIM Invert does it."""
        schedule = self.pack.host.model.schedule_of(self.model, how.steps, how.spacing)
        inversion, empty = self.pack.host.sampling.inversion, self.prompt("")
        _, noise = inversion.invert_latent(self.model, latent, empty, schedule, how.refinements)
        return self.decode(inversion.reconstruct_latent(self.model, noise, empty, schedule))

    def sample(self, text: str, seed: int) -> np.ndarray:
        """KSampler from noise at 256x256."""
        latent = {"samples": torch.zeros(1, autoencoder.LATENT_CHANNELS, 32, 32)}
        positive, negative = self.prompt(text), self.prompt("")
        settings = {"seed": seed, "steps": 25, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "ddim_uniform"}
        out = self.nodes.KSampler().sample(
            self.model, positive=positive, negative=negative, latent_image=latent, **settings
        )
        return self.decode(out[0]["samples"])

    def velocity(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The network's prediction, a timestep for each row."""
        network = self.model.model.diffusion_model
        weight = next(network.parameters())
        return network(x.to(weight), t.to(weight.device).float(), context=context.to(weight)).float().to(x.device)


def _denoising_loss(stock: Stock, work: Path) -> float:
    pictures, captions = latents.held_out_pictures(work / "wheels")
    context = torch.cat([stock.prompt(caption)[0][0] for caption in captions])
    return unet.held_out_loss(partial(stock.velocity, context=context), torch.cat([stock.encode(p) for p in pictures]))


@torch.inference_mode()
def measure(work: Path, sheet: Path) -> dict[str, Any]:
    """Figures for model.json, and a picture sheet of reconstructions and samples."""
    stock, images = Stock(), {}
    for photo in photographs.HELD_OUT:
        images[Path(photo.member).stem] = photographs.centre(photographs.load(photo, work / "wheels"), 256)
    encoded = {name: stock.encode(image) for name, image in images.items()}
    decoded = {name: stock.decode(latent) for name, latent in encoded.items()}
    quality = {name: round(autoencoder.psnr(images[name], decoded[name]), 2) for name in images}
    back: dict[str, dict[str, np.ndarray]] = {}
    for words, how in INVERSIONS.items():
        back[words] = {name: stock.there_and_back(latent, how) for name, latent in encoded.items()}
        log.info("inverted with %s", words)
    samples = [stock.sample(text, seed) for seed, text in enumerate(PROMPTS)]
    rows = [list(made.values()) for made in (images, decoded, back["50 steps"])]
    _sheet(sheet, [*rows, *(samples[i : i + 3] for i in range(0, len(samples), 3))])
    return {
        "autoencoder_psnr_db": {**quality, "mean": round(sum(quality.values()) / len(quality), 2)},
        "denoising_loss": round(_denoising_loss(stock, work), 4),
        "inversion_psnr_db": {
            words: {name: round(autoencoder.psnr(decoded[name], made), 2) for name, made in by_name.items()}
            for words, by_name in back.items()
        },
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
