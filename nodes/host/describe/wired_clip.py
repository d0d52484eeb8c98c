"""The host's own text generation over a picture, by a CLIP whose text encoder takes one (comfy_extras/nodes_textgen).

In ComfyUI 0.30 these are Qwen3-VL, Qwen3.5, Gemma 3 (4B with vision, 12B) and Gemma 4. Others drop the picture without
a word and would describe nothing: they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .request import Answer, Request

TAKE_PICTURES = "Qwen3-VL, Qwen3.5, Gemma 3 (4B with vision, 12B) or Gemma 4"


def describe_by_clip(clip: Any, picture: Tensor, request: Request) -> Answer:
    """The answer about a picture [H, W, 3] in 0..1; the same as the stock node Generate Text gives with its template.

    Raises ValueError for a CLIP that does not generate text, or does not look at pictures.
    """
    tokens = _tokens(clip, picture, request.question)
    drawn = request.sampling
    found = clip.generate(
        tokens,
        do_sample=drawn is not None,
        max_length=request.max_length,
        temperature=drawn.temperature if drawn else 1.0,
        top_k=0,
        top_p=drawn.top_p if drawn else 1.0,
        min_p=0.0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        seed=drawn.seed if drawn else None,
    )
    return Answer(clip.decode(found).strip(), len(found) >= request.max_length, tuple(found))


def require_sight(clip: Any, question: str) -> None:
    """Raises ValueError unless the CLIP generates text and looks at a picture that it is given. Runs no network."""
    import torch

    _tokens(clip, torch.zeros(64, 64, 3), question)


def _tokens(clip: Any, picture: Tensor, question: str) -> Any:
    """The question with the picture in it, as Generate Text makes it."""
    if not any(hasattr(m, "preprocess_embed") and hasattr(m, "generate") for m in clip.cond_stage_model.modules()):
        raise ValueError(_refusal(clip, "its text encoder does not write text about pictures"))
    try:
        tokens = clip.tokenize(question, image=picture[None], skip_template=False, min_length=1, thinking=False)
    except TypeError as error:
        raise ValueError(_refusal(clip, f"it cannot be asked by Generate Text either ({error})")) from error
    if not any(_is_picture(token) for token in _all(tokens)):
        raise ValueError(_refusal(clip, "as loaded (its type) it leaves the picture out"))
    return tokens


def _all(tokens: Any) -> Iterator[Any]:
    for rows in tokens.values() if isinstance(tokens, dict) else [tokens]:
        for row in rows:
            yield from (token[0] for token in row)


def _is_picture(token: Any) -> bool:
    return isinstance(token, dict) and token.get("type") == "image"


def _refusal(clip: Any, reason: str) -> str:
    return (
        f"clip: {type(clip.tokenizer).__name__} cannot describe a picture: {reason}. Load {TAKE_PICTURES} with "
        "Load CLIP, or unplug it and choose a model_folder."
    )
