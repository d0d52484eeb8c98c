"""What the demo checkpoint promises, on photographs that it never saw: the bars of its README."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import numpy as np
import pytest
import torch
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / "demo"
PHOTOGRAPHS = ("content_astronaut.jpg", "content_chelsea.jpg", "content_coffee.jpg")


@pytest.fixture(scope="module")
def demo(pack):
    """MODEL, CLIP, VAE from the host's loader, and the photographs [1, 256, 256, 3]."""
    with torch.inference_mode():
        loaded = comfy.sd.load_checkpoint_guess_config(str(DEMO / "diffstyler-demo.safetensors"))
        yield (*loaded[:3], [photograph(name) for name in PHOTOGRAPHS])


def photograph(name: str) -> torch.Tensor:
    with Image.open(DEMO / "pictures" / name) as file:
        small = file.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)[None]


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a.clamp(0, 1) - b.clamp(0, 1)).square().mean()))


def test_the_file_is_small():
    assert (DEMO / "diffstyler-demo.safetensors").stat().st_size <= 48e6


def test_the_autoencoder_keeps_photographs(demo, measured):
    _, _, vae, photographs = demo
    kept = [decibels(vae.decode(vae.encode(picture)), picture) for picture in photographs]
    measured("autoencoder, dB, mean of three photographs", np.mean(kept), at_least=26.0)
    measured("autoencoder, dB, the worst", min(kept), at_least=23.5)


@pytest.mark.parametrize(("steps", "refinements", "bar"), [(250, 0, 48.0), (50, 0, 37.0), (50, 1, 58.0), (50, 3, 70.0)])
def test_inversion_brings_the_autoencoders_picture_back(pack, demo, measured, steps, refinements, bar):
    """As DDIM Invert does it with an empty prompt: plain, and refined."""
    model, clip, vae, photographs = demo
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    latent = vae.encode(photographs[1])
    schedule = pack.host.model.schedule_of(model, steps, "leading")
    _, noise = pack.host.sampling.inversion.invert_latent(model, latent, empty, schedule, refinements)
    back = vae.decode(pack.host.sampling.inversion.reconstruct_latent(model, noise, empty, schedule).cpu())
    kept = decibels(back, vae.decode(latent))
    measured(f"{steps} steps, {refinements} refinements, dB", kept, at_least=bar)
