"""Style embeddings: vectors that stand in a prompt in place of words, learned from a picture (textual inversion).

``FreeVectors`` learns the vectors themselves (Gal et al. 2022). ``ImageAttention`` learns what turns the CLIP embedding
of the picture into a vector (InST 2023, section 3.2). One set of vectors for each text encoder that reads the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from .config import BOUNDS, require_bounds

ATTENTION, EMBEDDING = "attention (InST)", "embedding"
METHODS = (EMBEDDING, ATTENTION)
MOST_VECTORS = 32
SHARED = ("steps", "learning_rate", "weight_decay", "seed", "resolution", "batch_size")
EMBEDDING_BOUNDS: dict[str, tuple[float, float]] = {
    **{name: BOUNDS[name] for name in SHARED},
    "vectors": (1, MOST_VECTORS),
}
HEADS, HEAD, DROPOUT = 8, 64, 0.05
"""InST's attention: heads, their width, and the share of its activations that is dropped in training."""

Vectors = dict[str, Tensor]
"""Per text encoder ('clip_l', 'clip_g', ...), its vectors [n, width]."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """Settings of one training. vectors, initial_word: of the method 'embedding' alone. resolution: pixels."""

    method: str
    steps: int
    learning_rate: float
    seed: int = 0
    resolution: int = 512
    batch_size: int = 1
    vectors: int = 1
    initial_word: str = ""
    weight_decay: float = 1e-2
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}.")
        require_bounds(self, EMBEDDING_BOUNDS)


class FreeVectors(nn.Module):
    """Vectors that are trained themselves, from initial ones."""

    def __init__(self, initial: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.vectors = nn.ParameterDict({key: nn.Parameter(value.clone()) for key, value in initial.items()})

    def forward(self) -> Vectors:
        """The vectors as they are now."""
        return {key: self.vectors[key] for key in self.vectors}


class ImageAttention(nn.Module):
    """One vector for each encoder, made of a picture's CLIP embedding [1, D] by a trained attention (InST, eq. 3).

    D is the embedding's width; where an encoder's differs, the last layer leads over. seed: first weights and dropout.
    """

    def __init__(self, image: Tensor, widths: Mapping[str, int], seed: int) -> None:
        super().__init__()
        self.image: Tensor
        self.register_buffer("image", image.clone())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = {key: StyleAttention(image.shape[-1], width) for key, width in widths.items()}
        self.attention = nn.ModuleDict(made)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def forward(self) -> Vectors:
        """The vectors [1, width] of the picture."""
        return {key: module(self.image[None])[0] for key, module in self.attention.items()}


class StyleAttention(nn.Module):
    """InST's module: attention of x to itself, of the result to x, and a linear layer. [B, n, D] -> [B, n, width]."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width), Attention(width)
        self.net = nn.Sequential(Dropout(), nn.Linear(width, out))

    def forward(self, x: Tensor) -> Tensor:
        """attn2(attn1(x, x), x), then the linear layer."""
        made: Tensor = self.net(self.attn2(self.attn1(x, x), x))
        return made


class Attention(nn.Module):
    """Latent diffusion's cross-attention: HEADS heads of HEAD, no biases but the last one. [B, n, D] -> [B, n, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, HEADS * HEAD, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(HEADS * HEAD, width), Dropout())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attention of x to context."""
        inner = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=HEADS) for part in inner)
        out: Tensor = self.to_out(rearrange(functional.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))
        return out


class Dropout(nn.Module):
    """Dropout whose draws come from a generator of its own: torch's random state is not touched."""

    generator: torch.Generator

    def forward(self, x: Tensor) -> Tensor:
        """x, or in training x with a share DROPOUT of it zero and the rest larger by as much."""
        if not self.training:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= DROPOUT
        return x * kept.to(x) / (1.0 - DROPOUT)


def extracted(source: nn.Module) -> Vectors:
    """The vectors that a source gives, without dropout, copied to the CPU."""
    was = source.training
    with torch.no_grad():
        found = {key: value.detach().float().cpu().clone() for key, value in source.eval()().items()}
    source.train(was)
    return found
