"""The tensors of a published DEADiff checkpoint: which there must be, by name and shape, and what is made of them.

Names are those of its public code (github.com/bytedance/DEADiff: DualBlipDiffusion with LAVIS' Blip2Qformer). Only the
trained parts are kept (the poster: the query transformers, their projections, W_I^K and W_I^V).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .deadiff import CONTENT, STYLE, DEADiff, Vision
from .extractor import Extractor, Sizes

WORDS = {STYLE: (101, 2806, 102), CONTENT: (101, 4180, 102)}
"""'[CLS] style [SEP]' and '[CLS] content [SEP]' by the lines of bert-base-uncased's vocab.txt, counted from 0."""
BLOCKS = (
    *(f"input_blocks.{block}" for block in (1, 2, 4, 5, 7, 8)),
    "middle_block",
    *(f"output_blocks.{block}" for block in range(3, 12)),
)
"""SD1.5's blocks with cross-attention, in the order of evaluation: layers 0-15."""
PUBLISHED_VISION = Vision(1024, 23, 257)
"""CLIP ViT-L/14 without its last layer (LAVIS, create_clip_vit_L), at 224 pixels."""

State = Mapping[str, Tensor]


def is_used(key: str) -> bool:
    """Whether a tensor of that name can be part of what is kept, or tells what the CLIP must be."""
    parts = ("_blip.ln_vision.", "_blip.query_tokens", "_blip.Qformer.bert.", "_blip.visual_encoder.", "_proj_layer.")
    return key.startswith(tuple(name + part for name in WORDS for part in parts)) or ".attn2.i_to_" in key


def build(state: State, source: str) -> DEADiff:
    """The checkpoint of these tensors. Raises ValueError that names what it lacks, or what has another shape."""
    extractors = {name: _extractor(state, name) for name in WORDS}
    width = extractors[STYLE].query_tokens.shape[2]
    return DEADiff(extractors, tuple(_projections(state, block, width) for block in BLOCKS), _vision(state), source)


def file_keys(extractor: Extractor, name: str) -> dict[str, str]:
    """The extractor's own names -> the file's, without the words."""
    homes = {
        "qformer.LayerNorm": f"{name}_blip.Qformer.bert.embeddings.LayerNorm",
        "qformer.layer": f"{name}_blip.Qformer.bert.encoder.layer",
        "proj_layer": f"{name}_proj_layer",
        "": f"{name}_blip.",
    }
    own = [key for key in extractor.state_dict() if key != "words"]
    start = {key: next(home for home in homes if key.startswith(home)) for key in own}
    return {key: homes[start[key]] + key.removeprefix(start[key]) for key in own}


def sizes_of(state: State, name: str) -> Sizes:
    """The sizes that an instruction's tensors tell."""
    layers = f"{name}_blip.Qformer.bert.encoder.layer."
    numbers = {int(found[1]) for key in state if (found := re.match(re.escape(layers) + r"(\d+)\.", key))}
    crossed = frozenset(n for n in numbers if f"{layers}{n}.crossattention.self.query.weight" in state)
    queries = _tensor(state, f"{name}_blip.query_tokens", 3)
    return Sizes(
        queries.shape[1],
        queries.shape[2],
        _tensor(state, f"{name}_blip.ln_vision.weight", 1).shape[0],
        _tensor(state, f"{layers}0.intermediate_query.dense.weight", 2).shape[0],
        _tensor(state, f"{name}_proj_layer.dense1.weight", 2).shape[0],
        max(numbers) + 1,
        crossed,
    )


def _extractor(state: State, name: str) -> Extractor:
    with torch.device("meta"):
        extractor = Extractor(sizes_of(state, name), len(WORDS[name]))
    keys, wanted = file_keys(extractor, name), extractor.state_dict()
    for own, key in keys.items():
        _require_shape(_tensor(state, key), list(wanted[own].shape), key)
    tensors = {own: state[key].detach() for own, key in keys.items()} | {"words": _words(state, name)}
    extractor.load_state_dict(tensors, assign=True)
    return extractor.eval().requires_grad_(False)


def _words(state: State, name: str) -> Tensor:
    """BERT's embedding of the instruction: words and their positions from 0."""
    home = f"{name}_blip.Qformer.bert.embeddings."
    width = _tensor(state, f"{name}_blip.query_tokens", 3).shape[2]
    words, positions = (_tensor(state, f"{home}{kind}_embeddings.weight", 2) for kind in ("word", "position"))
    ids = WORDS[name]
    _require_shape(words, [max(len(words), max(ids) + 1), width], f"{home}word_embeddings.weight")
    _require_shape(positions, [max(len(positions), len(ids)), width], f"{home}position_embeddings.weight")
    return (words[list(ids)].float() + positions[: len(ids)].float())[None]


def _projections(state: State, block: str, width: int) -> tuple[Tensor, Tensor]:
    home = f"model.diffusion_model.{block}.1.transformer_blocks.0.attn2.i_to_"
    to_k, to_v = (_tensor(state, f"{home}{kind}.weight", 2) for kind in "kv")
    for kind, found in (("k", to_k), ("v", to_v)):
        _require_shape(found, [to_k.shape[0], width], f"{home}{kind}.weight")
    return to_k.detach(), to_v.detach()


def _vision(state: State) -> Vision:
    """From the CLIP that the file carries; as published where it carries none."""
    width = state[f"{STYLE}_blip.ln_vision.weight"].shape[0]
    home = f"{STYLE}_blip.visual_encoder."
    positions = state.get(f"{home}positional_embedding")
    blocks = [int(found[1]) for key in state if (found := re.match(re.escape(home) + r".*resblocks\.(\d+)\.", key))]
    if positions is not None and blocks:
        return Vision(width, max(blocks) + 1, len(positions))
    return PUBLISHED_VISION if width == PUBLISHED_VISION.width else Vision(width)


def _tensor(state: State, key: str, dimensions: int | None = None) -> Tensor:
    if key not in state:
        raise ValueError(f"it lacks {key}")
    found = state[key]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{key} must be a tensor of floating point numbers, got {kind}")
    if dimensions is not None and found.ndim != dimensions:
        raise ValueError(f"{key} must have {dimensions} dimensions, got the shape {list(found.shape)}")
    return found


def _require_shape(found: Tensor, wanted: list[int], key: str) -> None:
    if list(found.shape) != wanted:
        raise ValueError(f"{key} must have the shape {wanted}, got {list(found.shape)}")
