"""The prompt of a style embedding: where its vectors stand among the tokens, and the words that they begin as."""

from __future__ import annotations

import copy
import re
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from comfy.sd import CLIP
from comfy.sd1_clip import SDTokenizer
from torch import Tensor

from ....diffstyler_core.training.embedding import EMBEDDING, EmbeddingConfig
from ..checks.text import require_text
from .encoder import PrivateEncoder, Tokens, text_encoders, widths_of

PLACEHOLDER = "*"
LONGEST = 20_000
"""Letters of a prompt."""


class Prompt(NamedTuple):
    """A tokenised prompt. places: which entry of which section of which encoder is which row of whose vectors."""

    tokens: Tokens
    places: dict[tuple[str, int, int], tuple[str, int]]

    def filled(self, vectors: Mapping[str, Tensor]) -> Tokens:
        """The prompt with these vectors [n, width] in their places."""
        made = {key: [list(section) for section in sections] for key, sections in self.tokens.items()}
        for (key, section, entry), (encoder, row) in self.places.items():
            made[key][section][entry] = (vectors[encoder][row], made[key][section][entry][1])
        return made

    def described(self) -> dict[str, Any]:
        """The prompt for its identity: its tokens, and names for the vectors."""
        made: dict[str, Any] = {**self.tokens}
        for key, sections in self.tokens.items():
            made[key] = [
                [(" ".join(map(str, self.places.get((key, i, j), ()))) or token, weight) for j, (token, weight) in row]
                for i, row in enumerate(map(enumerate, sections))
            ]
        return made


def tokenized(clip: CLIP, text: str, vectors: int) -> Prompt:
    """The prompt with room for so many vectors at each placeholder, split as the host splits 'embedding:NAME' there.

    Raises ValueError for a prompt without a placeholder.
    """
    if PLACEHOLDER not in require_text(text, "prompt", LONGEST):
        raise ValueError(
            f"prompt: it must say where the style stands, as in 'painting in the style of {PLACEHOLDER}', got "
            f"{text[:80]!a}. Write a {PLACEHOLDER} into it."
        )
    generator = torch.Generator().manual_seed(0)
    marks = {name: torch.rand(vectors, width, generator=generator) for name, width in widths_of(clip).items()}
    with tempfile.TemporaryDirectory(prefix="diffstyler") as folder:
        name = uuid.uuid4().hex
        keys = {part.embedding_key: marks[encoder] for encoder, part in tokenizers(clip).items()}
        safetensors.torch.save_file(keys, Path(folder) / f"{name}.safetensors")
        tokens = reading_also(clip, folder).tokenize(with_embedding(text, name))
    places = {
        (key, i, j): found
        for key, sections in tokens.items()
        for i, section in enumerate(sections)
        for j, (token, _) in enumerate(section)
        if isinstance(token, Tensor) and (found := _row(token, marks)) is not None
    }
    return Prompt(tokens, places)


def _row(token: Tensor, marks: Mapping[str, Tensor]) -> tuple[str, int] | None:
    found = [(name, row) for name, rows in marks.items() for row, mark in enumerate(rows) if torch.equal(token, mark)]
    return found[0] if found else None


def with_embedding(text: str, name: str) -> str:
    """The prompt with 'embedding:NAME' for each placeholder, with the spaces around it that the host wants there."""
    text = re.sub(rf"(?<![\s(]){re.escape(PLACEHOLDER)}", f" {PLACEHOLDER}", text.strip())
    text = re.sub(rf"{re.escape(PLACEHOLDER)}(?![\s)]|:[\d.]+\)|$)", f"{PLACEHOLDER} ", text)
    return text.replace(PLACEHOLDER, f"embedding:{name}")


def tokenizers(clip: CLIP) -> dict[str, SDTokenizer]:
    """The tokenizer of each text encoder."""
    return {name: getattr(clip.tokenizer, name) for name in text_encoders(clip)}


def reading_also(clip: CLIP, folder: str) -> CLIP:
    """A clone of the CLIP whose tokenizers find embeddings in one folder more."""
    made = clip.clone()
    made.tokenizer = copy.copy(clip.tokenizer)
    for name, part in tokenizers(clip).items():
        known = part.embedding_directory or []
        own = copy.copy(part)
        own.embedding_directory = [folder, *([known] if isinstance(known, str) else known)]
        setattr(made.tokenizer, name, own)
    return made


def first_vectors(clip: CLIP, encoder: PrivateEncoder, word: str, count: int) -> dict[str, Tensor]:
    """The vectors [count, width] that the words have in each encoder, from the first again where they are fewer."""
    made = {}
    for name, part in tokenizers(clip).items():
        ids = word_tokens(part, word)
        table = encoder.parts[name].transformer.get_input_embeddings().weight
        made[name] = table[[ids[i % len(ids)] for i in range(count)]].clone()
    return made


def word_tokens(tokenizer: SDTokenizer, word: str) -> list[int]:
    """The token ids of words, nothing around them. Raises ValueError for none."""
    special = (tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token)
    sections = tokenizer.tokenize_with_weights(require_text(word, "initial_word"), disable_weights=True)
    ids = [token for section in sections for token, _ in section if isinstance(token, int) and token not in special]
    if not ids:
        raise ValueError(
            f"initial_word: the embedding begins as a word that the text encoder knows, got {word!r:.60}. "
            "Type one in, e.g. painting."
        )
    return ids


def require_words(clip: CLIP, config: EmbeddingConfig) -> None:
    """Raises ValueError for a method that begins with words when there are none."""
    for part in tokenizers(clip).values() if config.method == EMBEDDING else ():
        word_tokens(part, config.initial_word)


def blank_vectors(clip: CLIP, count: int) -> dict[str, Tensor]:
    """Vectors of zeros, for a look at what the prompt is encoded as."""
    return {name: torch.zeros(count, width) for name, width in widths_of(clip).items()}
