"""Self-attention that looks at other frames of a batch.

softmax(q_i [k_i, k_A]^T / sqrt(d)) [v_i, v_A], where A are the frames that frame i looks at beside itself: the first
(as Text2Video-Zero, arXiv 2303.13439), the one before it as well (as Tune-A-Video, arXiv 2212.11565), or all.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .attention import QKV

Looking = Literal["first", "first and previous", "all"]
LOOKINGS: tuple[Looking, ...] = get_args(Looking)


def shared(own: QKV, chunks: int, looking: Looking) -> QKV:
    """What each frame's attention is computed of. own: q, k, v of ``chunks`` prompts' frames, prompt by prompt.

    Frames look at frames of their own prompt only. One frame alone stays as it is. Raises ValueError when the rows are
    no multiple of the prompts.
    """
    frames, rest = divmod(len(own.k), chunks)
    if rest:
        raise ValueError(f"a batch of {len(own.k)} rows cannot be shared by {chunks} prompts of as many frames each.")
    if frames == 1:
        return own
    return QKV(own.q, *(_seen(x.unflatten(0, (chunks, frames)), looking).flatten(0, 1) for x in (own.k, own.v)))


def _seen(x: Tensor, looking: Looking) -> Tensor:
    """[chunks, frames, tokens, C] -> [chunks, frames, seen tokens, C]."""
    frames = x.shape[1]
    if looking == "all":
        return x.flatten(1, 2)[:, None].expand(-1, frames, -1, -1)
    first = x[:, :1].expand_as(x)
    if looking == "first":
        return torch.cat([x, first], 2)
    before = torch.cat([x[:, :1], x[:, :-1]], 1)
    return torch.cat([x, first, before], 2)
