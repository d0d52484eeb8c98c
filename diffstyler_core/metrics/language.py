"""What a CLIP says of a picture and words, from its embeddings [D] of any length."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .available import NotAvailable


def clip_similarity(picture: Tensor, words: Tensor) -> float:
    """cos(E(picture), E(words)), -1..1: CLIPScore (Hessel et al. 2021) without its scale. Higher: as the words say."""
    return functional.cosine_similarity(picture.double(), words.double(), dim=0).item()


def clip_direction(content: Tensor, result: Tensor, source: Tensor, target: Tensor) -> float:
    """Directional CLIP similarity (StyleGAN-NADA, Gal et al. 2022, eq. 2), -1..1. Higher: changed as the words say.

    cos(E(result) - E(content), E(target) - E(source)), each E scaled to length 1 first. Raises NotAvailable where
    either pair is equal: it has no direction.
    """
    start, end, before, after = (functional.normalize(e.double(), dim=0) for e in (content, result, source, target))
    moved, meant = end - start, after - before
    if not moved.any() or not meant.any():
        raise NotAvailable("CLIP sees no difference between the two pictures, or between the two prompts")
    return functional.cosine_similarity(moved, meant, dim=0).item()
