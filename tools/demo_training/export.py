"""The checkpoint file in half precision, and model.json beside it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from . import autoencoder, latents
from .workplace import demo_model

log = logging.getLogger(__name__)
FILE = "diffstyler-demo.safetensors"


def preview_fit(work: Path) -> tuple[list[list[float]], list[float]]:
    """Least squares from latents to the pictures' colours in -1..1, averaged over 8x8 pixels."""
    z = latents.load(work)
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    chosen = np.linspace(0, len(pictures) - 1, 300).astype(int)
    chosen = chosen[2 * chosen < len(z)]
    small = np.asarray(pictures[chosen], np.float32).reshape(len(chosen), 32, 8, 32, 8, 3).mean((2, 4)) / 127.5 - 1
    x = z[torch.from_numpy(2 * chosen)].float().movedim(1, -1).reshape(-1, z.shape[1])
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    fit = torch.linalg.lstsq(x, torch.from_numpy(small).reshape(-1, 3)).solution
    rounded = [[round(float(v), 4) for v in row] for row in fit]
    return rounded[:-1], rounded[-1]


def tensors(work: Path) -> dict[str, Tensor]:
    """All weights under the names of a Stable Diffusion checkpoint: averaged, contiguous, float16."""
    state = torch.load(work / "unet.pt", map_location="cpu", weights_only=True)
    out = {demo_model().MARKER: torch.ones(1)}
    prefixes = {"unet.": "model.diffusion_model.", "text.": "cond_stage_model."}
    for key, value in state["average"]["values"].items():
        own, host = next(p for p in prefixes.items() if key.startswith(p[0]))
        out[host + key[len(own) :]] = value
    for key, value in latents.trained_autoencoder(work).state_dict().items():
        out["first_stage_model." + key] = value
    out["first_stage_model.vae_scale"] = torch.tensor(autoencoder.VAE_SCALE)
    return {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in out.items()}


def figures(work: Path) -> dict[str, Any]:
    """What the training files know about themselves."""
    unet = torch.load(work / "unet.pt", map_location="cpu", weights_only=True)
    auto = torch.load(work / "autoencoder.pt", map_location="cpu", weights_only=True)
    pictures = len(latents.load(work)) // 2
    return {
        "pictures": pictures,
        "unet_steps": unet["step"],
        "unet_minutes_since_restart": round(unet["spent"] / 60, 1),
        "autoencoder_decoder_steps": auto["step"],
        "machine": "two shared CPU cores, no accelerator",
    }


def write(work: Path, folder: Path) -> Path:
    """Write checkpoint and model.json; figures measured on an earlier file are dropped from model.json."""
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / FILE, folder / (FILE + ".partial")
    notes = {"format": "pt", "title": "DiffStyler demo", "license": "GPL-3.0-or-later"}
    save_file(tensors(work), str(partial), metadata=notes)
    partial.replace(target)
    target.chmod(0o644)
    factors, bias = preview_fit(work)
    demo = demo_model()
    about = {
        "name": "DiffStyler demo",
        "file": FILE,
        "unet": demo.UNET,
        "text": demo.TEXT,
        "latent": {"channels": demo.LATENT_CHANNELS, "scale_factor": 1.0, "rgb_factors": factors, "rgb_bias": bias},
        "training": figures(work),
    }
    (folder / "model.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    log.info("%s, %.1f MB", target, target.stat().st_size / 1e6)
    return target
