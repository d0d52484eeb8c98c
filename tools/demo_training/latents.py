"""Pictures to latents, once. And the fixed held-out set that losses are reported on."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import artworks, autoencoder, photographs, scenes

log = logging.getLogger(__name__)


def trained_autoencoder(work: Path) -> Any:
    """The autoencoder as last stored; its encoder must be frozen."""
    path = work / "autoencoder.pt"
    if not path.exists():
        raise ValueError(f"no {path}; run the 'autoencoder' stage first")
    state = torch.load(path, map_location=autoencoder.device(), weights_only=True)
    if state["phase"] != "decoder":
        raise ValueError("the encoder is still being trained; let the 'autoencoder' stage reach its decoder phase")
    model = autoencoder.build()
    model.load_state_dict(state["average"]["values"])
    return model.eval()


@torch.no_grad()
def encode(model: Any, images: Iterable[NDArray[np.uint8]]) -> Tensor:  # [N, 16, H/8, W/8] float16
    raw = [autoencoder.encode(model, autoencoder.to_tensor(image[None])) for image in images]
    return (torch.cat(raw) / autoencoder.VAE_SCALE).half().cpu()


def make(work: Path, most: int | None = None) -> None:
    """latents.pt [2N, 16, 32, 32] of the first `most` pictures, each followed by its mirror image.

    Adds to what is there: new ones cost only themselves.
    """
    model, pictures = trained_autoencoder(work), np.load(work / "pictures.npy", mmap_mode="r")[:most]
    path = work / "latents.pt"
    done = torch.load(path, weights_only=True) if path.exists() else torch.zeros(0, autoencoder.LATENT_CHANNELS, 32, 32)
    for start in range(len(done) // 2, len(pictures), 100):
        both = [picture for one in pictures[start : start + 100] for picture in (one, one[:, ::-1])]
        done = torch.cat([done.half(), encode(model, both)])
        autoencoder.save(path, done)
        log.info("latents of %d pictures", len(done) // 2)


def held_out_pictures(wheels: Path) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The held-out photographs, and scenes and artworks whose seeds the training set cannot have."""
    pictures = [photographs.centre(photographs.load(p, wheels), 256) for p in photographs.HELD_OUT]
    captions = [f"photo of {p.subject}" for p in photographs.HELD_OUT]
    subjects, techniques = list(scenes.SUBJECTS), list(artworks.TECHNIQUES)
    for k in range(13):
        subject = subjects[k % len(subjects)]
        image, caption = scenes.scene(subject, 256, 100 + k), f"photo of {subject}"
        if k % 2:
            technique = techniques[k % len(techniques)]
            image = artworks.artwork(image, technique, 100 + k)
            caption = f"{artworks.TECHNIQUES[technique][0]} of {subject}"
        pictures.append(np.round(image * 255).astype(np.uint8))
        captions.append(caption)
    return pictures, captions


def held_out(work: Path) -> tuple[Tensor, list[str]]:
    """Their latents [16, 16, 32, 32] and captions, kept in a file."""
    path = work / "held_out.pt"
    if not path.exists():
        pictures, captions = held_out_pictures(work / "wheels")
        autoencoder.save(path, {"latents": encode(trained_autoencoder(work), pictures), "captions": captions})
    state = torch.load(path, weights_only=True)
    return state["latents"].float(), state["captions"]


def load(work: Path) -> Tensor:
    """The training latents [2N, 16, 32, 32] made so far."""
    return torch.load(work / "latents.pt", weights_only=True)


def captions(work: Path) -> list[str]:
    """One for each picture and its mirror image, also for those without latents yet."""
    return [caption for caption in json.loads((work / "captions.json").read_text()) for _ in range(2)]
