"""What a prompt chooses among the candidates of one picture after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ....diffstyler_core.masks.crops import candidate_crops, large_enough
from ....diffstyler_core.masks.prompts import parse_boxes, parse_points, require_boxes, require_points
from ....diffstyler_core.masks.segments import Segments, Selection, by_boxes, by_points, by_ranking
from ..networks.clip import TextRanker, make_ranker
from .marks import wired_boxes, wired_points

Chooser = Callable[[Tensor, Segments], Selection]


def rank_by_text(ranker: TextRanker, picture: Tensor, segments: Segments) -> Tensor:
    """How well each candidate fits the text [N]; -inf for those too small to show anything."""
    ranking = torch.full((len(segments),), -torch.inf)
    worth = large_enough(segments.masks)
    ranking[worth] = ranker.rank(candidate_crops(picture, segments.masks[worth], ranker.size))
    return ranking


def point_choosers(image: Tensor, text: str, wired: Any, best_n: int) -> list[Chooser]:
    """One for each picture. Raises ValueError for no points, malformed ones, and points outside the picture."""
    count, height, width = image.shape[:3]
    choosers: list[Chooser] = []
    for own in wired_points(wired, count):
        points = [*parse_points(text), *own]
        if not points:
            raise ValueError("points: mode points needs at least one point, got none. Write one, e.g. 120, 80.")
        require_points(points, width, height)
        choosers.append(partial(_take, by_points, points, best_n))
    return choosers


def box_choosers(image: Tensor, text: str, wired: Any, best_n: int) -> list[Chooser]:
    """One for each picture. Raises ValueError for no boxes, malformed ones, and boxes outside the picture."""
    count, height, width = image.shape[:3]
    choosers: list[Chooser] = []
    for own in wired_boxes(wired, count):
        boxes = [*parse_boxes(text), *own]
        if not boxes:
            raise ValueError("boxes: mode boxes needs at least one box, got none. Write one, e.g. 10, 20, 200, 180.")
        require_boxes(boxes, width, height)
        choosers.append(partial(_take, by_boxes, boxes, best_n))
    return choosers


def text_chooser(text: str, clip: Any, clip_vision: Any, clip_folder: str, best_n: int) -> Chooser:
    """Takes the candidates that a CLIP finds most like the text. Raises ValueError for no text and for no CLIP."""
    if not text.strip():
        raise ValueError(f"text: mode text needs words for the object, got {text!r}. Write them, e.g. the face.")
    ranker = make_ranker(text.strip(), clip, clip_vision, clip_folder)
    return lambda picture, segments: by_ranking(rank_by_text(ranker, picture, segments), best_n)


def _take(
    choose: Callable[[Segments, Any, int], Selection], marks: Any, best_n: int, _: Tensor, segments: Segments
) -> Selection:
    return choose(segments, marks, best_n)
