"""Nodes that compare latents and pictures."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from .told import told

PARTS = ("whole", "left", "right")
Latent = dict[str, Any]


class Compare:
    """How far two latents lie apart, over the whole or a half: norm of the difference over the second's norm."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("LATENT",), "b": ("LATENT",), "part": (list(PARTS),)}}

    def run(self, a: Latent, b: Latent, part: str) -> dict[str, Any]:
        one, other = (_part(latent["samples"], part).double().cpu() for latent in (a, b))
        finite = bool(torch.isfinite(one).all() and torch.isfinite(other).all())
        return told(gap=((one - other).norm() / other.norm()).item(), finite=finite)


class Decibels:
    """PSNR of two pictures in 0..1."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"a": ("IMAGE",), "b": ("IMAGE",)}}

    def run(self, a: Tensor, b: Tensor) -> dict[str, Any]:
        error = (a.clamp(0, 1) - b.clamp(0, 1)).double().square().mean()
        return told(psnr=(-10 * torch.log10(error.clamp(min=1e-12))).item(), finite=bool(torch.isfinite(error)))


class Digest:
    """SHA-256 of a latent's bits."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"latent": ("LATENT",)}}

    def run(self, latent: Latent) -> dict[str, Any]:
        return told(digest=digest_of([latent["samples"]]))


class Perturbed:
    """A latent with a little noise, always the same: `size` times its own norm."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "run", "DiffStyler/verify"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"latent": ("LATENT",), "size": ("FLOAT", {"default": 1e-6, "step": 1e-9})}}

    def run(self, latent: Latent, size: float) -> tuple[Latent]:
        samples = latent["samples"]
        noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0)).to(samples)
        return ({**latent, "samples": samples + noise * (size * samples.norm() / noise.norm())},)


class LeftHalf:
    """A MASK that covers the left half of a picture."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MASK",), "run", "DiffStyler/verify"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: Tensor) -> tuple[Tensor]:
        mask = torch.zeros(1, *image.shape[1:3])
        mask[..., : image.shape[2] // 2] = 1.0
        return (mask,)


def digest_of(tensors: list[Tensor]) -> str:
    """SHA-256 of tensors' bits, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        bits = tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8)
        digest.update(bits.numpy().tobytes())
    return digest.hexdigest()


def _part(samples: Tensor, part: str) -> Tensor:
    middle = samples.shape[-1] // 2
    return {"whole": samples, "left": samples[..., :middle], "right": samples[..., middle:]}[part]
