"""Attention across frames against the formula row by row in float64."""

from __future__ import annotations

import pytest
import torch

from diffstyler_core.injection.attention import QKV
from diffstyler_core.injection.shared_frames import LOOKINGS, shared

CHUNKS, FRAMES = 2, 4


def seen_by(frame, looking):
    """The frames that a frame looks at."""
    return {
        "first": [frame, 0],
        "first and previous": [frame, 0, max(frame - 1, 0)],
        "all": list(range(FRAMES)),
    }[looking]


def softmax_attention(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v


@pytest.mark.parametrize("looking", LOOKINGS)
def test_each_frame_looks_at_its_prompts_frames(looking, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(CHUNKS * FRAMES, 5, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    ours = softmax_attention(*shared(QKV(q, k, v), CHUNKS, looking))
    for row in range(CHUNKS * FRAMES):
        chunk, frame = divmod(row, FRAMES)
        rows = [chunk * FRAMES + other for other in seen_by(frame, looking)]
        theirs = softmax_attention(q[row], torch.cat([k[r] for r in rows]), torch.cat([v[r] for r in rows]))
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=1e-12)


def test_one_frame_stays_as_it_is():
    own = QKV(*(torch.randn(CHUNKS, 5, 8) for _ in range(3)))
    assert shared(own, CHUNKS, "all") is own


def test_rows_that_prompts_cannot_share():
    with pytest.raises(ValueError, match="batch of 3 rows cannot be shared by 2 prompts"):
        shared(QKV(*(torch.randn(3, 5, 8) for _ in range(3))), 2, "first")
