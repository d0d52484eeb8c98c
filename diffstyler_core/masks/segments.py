"""Objects found in a picture, and which of them a prompt means (method.md section 7). Coordinates are pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .prompts import Box, Point

AUTOMATIC = 0
COMBINES = ("merge", "separate")


@dataclass(frozen=True)
class Segments:
    """The candidates of one picture, most confident first.

    masks: [N, H, W] bool, at the picture's size
    scores: [N] confidence in 0..1
    """

    masks: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != torch.bool or self.scores.shape != self.masks.shape[:1]:
            raise ValueError(
                f"segments need masks [N, H, W] of bool and scores [N], got {list(self.masks.shape)} of "
                f"{self.masks.dtype} and {list(self.scores.shape)}. Threshold the masks first."
            )
        if (self.scores[1:] > self.scores[:-1]).any():
            raise ValueError(f"segments must come most confident first, got {self.scores.tolist()}. Use in_order().")

    def __len__(self) -> int:
        return self.masks.shape[0]


@dataclass(frozen=True)
class Selection:
    """The chosen candidates in order, and the prompts (in words) for which there was none."""

    indices: tuple[int, ...]
    unmet: tuple[str, ...] = ()


def in_order(masks: Tensor, scores: Tensor) -> Segments:
    """Candidates in any order -> Segments. Masks that cover nothing are left out."""
    scores = torch.where(masks.flatten(1).any(1), scores, -torch.inf)
    order = scores.argsort(descending=True, stable=True)[: int((scores > -torch.inf).sum())]
    return Segments(masks[order], scores[order])


def everything(segments: Segments, best_n: int = AUTOMATIC) -> Selection:
    """The ``best_n`` most confident candidates; 0: all."""
    return Selection(tuple(range(min(_count(best_n, len(segments)), len(segments)))))


def by_points(segments: Segments, points: Sequence[Point], best_n: int = AUTOMATIC) -> Selection:
    """Each inside point takes the best candidates that cover it and cover no outside point.

    The best cover the most inside points, and among those the most confident comes first. ``best_n`` of them
    are taken per inside point; 0: one. With outside points only: all candidates that cover none of them.
    """
    inside = [point for point in points if point.inside]
    covers = _covered(segments.masks, inside)
    allowed = ~_covered(segments.masks, [point for point in points if not point.inside]).any(1)
    if not inside:
        return _kept(allowed, best_n)
    # Candidates are already in order of confidence; a stable sort keeps it among equal counts.
    best = covers.sum(1).argsort(descending=True, stable=True).tolist()
    count = _count(best_n, 1)
    return _for_each(inside, "point", lambda k: [i for i in best if allowed[i] and covers[i, k]][:count])


def by_boxes(segments: Segments, boxes: Sequence[Box], best_n: int = AUTOMATIC) -> Selection:
    """Each box takes the ``best_n`` candidates (0: one) of the highest IoU between mask and box."""
    iou = box_iou(segments.masks, boxes)

    def best(k: int) -> list[int]:
        order = iou[:, k].argsort(descending=True, stable=True).tolist()
        return [i for i in order if iou[i, k] > 0][: _count(best_n, 1)]

    return _for_each(boxes, "box", best)


def by_ranking(ranking: Tensor, best_n: int = AUTOMATIC) -> Selection:
    """The ``best_n`` candidates (0: one) of the highest ranking [N]; candidates of rank -inf are never taken."""
    order = ranking.argsort(descending=True, stable=True).tolist()
    return Selection(tuple(i for i in order if ranking[i] > -torch.inf)[: _count(best_n, 1)])


def box_iou(masks: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Intersection over union of masks [N, H, W] with the parts of boxes in the picture -> [N, boxes]."""
    height, width = masks.shape[1:]
    iou = torch.zeros(masks.shape[0], len(boxes))
    area = masks.flatten(1).sum(1)
    for k, box in enumerate(boxes):
        y1, y2 = _span(box.y1, box.y2, height)
        x1, x2 = _span(box.x1, box.x2, width)
        shared = masks[:, y1:y2, x1:x2].flatten(1).sum(1)
        iou[:, k] = shared / (area + (y2 - y1) * (x2 - x1) - shared).clamp(min=1)
    return iou


def combine(segments: Segments, selection: Selection, how: str) -> Tensor:
    """The chosen masks [K, H, W] in 0..1: 'merge' gives their union (K = 1), 'separate' each. K = 0: none chosen."""
    if how not in COMBINES:
        raise ValueError(f"combine must be one of {', '.join(COMBINES)}, got {how!r}.")
    chosen = segments.masks[list(selection.indices)]
    if how == "merge" and len(chosen):
        chosen = chosen.any(0, keepdim=True)
    return chosen.float()


def _count(best_n: int, automatic: int) -> int:
    if best_n < 0:
        raise ValueError(f"best_n must be 0 (automatic) or more, got {best_n}.")
    return automatic if best_n == AUTOMATIC else best_n


def _covered(masks: Tensor, points: Sequence[Point]) -> Tensor:
    """Which masks [N, H, W] cover which points -> [N, points] bool. Points lie in the picture."""
    rows = torch.tensor([int(point.y) for point in points], dtype=torch.long)
    columns = torch.tensor([int(point.x) for point in points], dtype=torch.long)
    return masks[:, rows, columns]


def _kept(allowed: Tensor, best_n: int) -> Selection:
    indices = allowed.nonzero().flatten().tolist()
    return Selection(tuple(indices[: _count(best_n, len(indices))]))


def _for_each(prompts: Sequence[Point] | Sequence[Box], kind: str, best: Callable[[int], list[int]]) -> Selection:
    """The candidates of all prompts, each once, in the prompts' order."""
    chosen: dict[int, None] = {}
    unmet = []
    for k, prompt in enumerate(prompts):
        taken = best(k)
        chosen.update(dict.fromkeys(taken))
        unmet += [] if taken else [f"{kind} {prompt}"]
    return Selection(tuple(chosen), tuple(unmet))


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """The pixels of one axis whose centres lie between two edges; at least one, so that a thin box is not empty."""
    first = min(max(round(low), 0), size - 1)
    return first, max(min(round(high), size), first + 1)
