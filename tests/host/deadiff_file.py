"""A DEADiff checkpoint with random weights, its names and shapes written down from the public code. Knows no host."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Shape(NamedTuple):
    """Sizes of a checkpoint; unet: channels of each of the 16 cross-attention layers."""

    queries: int
    width: int
    vision: int
    inner: int
    depth: int
    unet: tuple[int, ...]
    positions: int = 512


REAL = Shape(16, 768, 1024, 3072, 12, (320,) * 2 + (640,) * 2 + (1280,) * 6 + (640,) * 3 + (320,) * 3)
TINY = Shape(4, 24, 32, 40, 2, (32,) * 2 + (64,) * 2 + (128,) * 6 + (64,) * 3 + (32,) * 3, 8)
"""Beside the UNet of tiny.py's SD1.5 and tiny_clip.py's vision tower; its prompts must be 24 wide."""
VOCABULARY = 30523
"""bert-base-uncased's and [DEC]."""


def dense(name: str, out: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def output(name: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {**dense(f"{name}.dense", width, inner), **norm(f"{name}.LayerNorm", width)}


def blip_shapes(blip: str, s: Shape) -> dict[str, tuple[int, ...]]:
    bert = f"{blip}.Qformer.bert"
    shapes = {f"{blip}.query_tokens": (1, s.queries, s.width), **norm(f"{blip}.ln_vision", s.vision)}
    shapes[f"{bert}.embeddings.word_embeddings.weight"] = (VOCABULARY, s.width)
    shapes[f"{bert}.embeddings.position_embeddings.weight"] = (s.positions, s.width)
    shapes |= norm(f"{bert}.embeddings.LayerNorm", s.width)
    for number in range(s.depth):
        layer = f"{bert}.encoder.layer.{number}"
        for attention, seen in (("attention", s.width), ("crossattention", s.vision)):
            shapes |= dense(f"{layer}.{attention}.self.query", s.width, s.width)
            shapes |= dense(f"{layer}.{attention}.self.key", s.width, seen)
            shapes |= dense(f"{layer}.{attention}.self.value", s.width, seen)
            shapes |= output(f"{layer}.{attention}.output", s.width, s.width)
        for end in ("", "_query"):
            shapes |= dense(f"{layer}.intermediate{end}.dense", s.inner, s.width)
            shapes |= output(f"{layer}.output{end}", s.width, s.inner)
    return shapes


def used_shapes(s: Shape) -> dict[str, tuple[int, ...]]:
    """What the pack keeps."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("style", "content"):
        shapes |= blip_shapes(f"{name}_blip", s)
        shapes |= dense(f"{name}_proj_layer.dense1", s.inner, s.width)
        shapes |= dense(f"{name}_proj_layer.dense2", s.width, s.inner)
        shapes |= norm(f"{name}_proj_layer.LayerNorm", s.width)
    blocks = [f"input_blocks.{i}" for i in (1, 2, 4, 5, 7, 8)] + ["middle_block"]
    blocks += [f"output_blocks.{i}" for i in range(3, 12)]
    for block, channels in zip(blocks, s.unet, strict=True):
        home = f"model.diffusion_model.{block}.1.transformer_blocks.0.attn2"
        shapes |= {f"{home}.i_to_k.weight": (channels, s.width), f"{home}.i_to_v.weight": (channels, s.width)}
    return shapes


def real_shapes() -> dict[str, tuple[int, ...]]:
    """The published sizes, with some of what else the file holds."""
    shapes = used_shapes(REAL)
    for name in ("style", "content"):
        home = f"{name}_blip.visual_encoder"
        shapes[f"{home}.positional_embedding"] = (257, 1024)
        shapes |= {f"{home}.transformer.resblocks.{i}.ln_1.weight": (1024,) for i in range(23)}
        shapes[f"{name}_blip.Qformer.cls.predictions.bias"] = (VOCABULARY,)
    shapes["model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"] = (1280, 768)
    shapes["first_stage_model.quant_conv.weight"] = (8, 8, 1, 1)
    return shapes


def file_state(s: Shape, seed: int) -> dict[str, Tensor]:
    """Random tensors of unit gain, norms near one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in used_shapes(s).items():
        noise = torch.randn(shape, generator=generator)
        one = 1.0 if key.endswith(("LayerNorm.weight", "ln_vision.weight")) else 0.0
        state[key] = noise * shape[1] ** -0.5 if len(shape) == 2 else one + (0.1 * noise if len(shape) == 1 else noise)
    return state
