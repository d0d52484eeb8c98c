"""Pictures put into words one by one, by whichever model is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..progress import ProgressBar, stop_if_cancelled
from ..text import say
from .folder_model import FolderModel
from .folders import NONE, WIDGET, checked_folder
from .request import Answer, Request
from .wired_clip import TAKE_PICTURES, describe_by_clip, require_sight

KEPT = "nothing described"


def source_of(clip: Any, name: str, question: str) -> Path | None:
    """The folder to read, or None for the wired CLIP. Raises ValueError for neither, both, and unfit ones."""
    if clip is None and name == NONE:
        raise ValueError(
            f"{WIDGET}: there is nothing to describe the picture with. Choose a model (one that is not installed says "
            f"where to get it), or wire a CLIP that takes pictures: {TAKE_PICTURES}."
        )
    if clip is None:
        return checked_folder(name)
    if name != NONE:
        raise ValueError(
            f"{WIDGET}: both a wired CLIP and the model {name!r:.100} were given. Set it to '{NONE}', or unplug clip."
        )
    require_sight(clip, question)
    return None


def by_clip(pictures: Tensor, clip: Any, request: Request) -> list[Answer]:
    """An answer for each picture [B, H, W, 3] in 0..1; the host's own progress and Cancel."""
    answers = []
    for number, picture in enumerate(pictures, 1):
        stop_if_cancelled()
        say(f"picture {number} of {len(pictures)}", kept=KEPT)
        answers.append(_spoken(describe_by_clip(clip, picture, request), number))
    return answers


def by_folder(pictures: Tensor, folder: Path, request: Request, precision: str) -> tuple[list[Answer], tuple[str, ...]]:
    """(an answer for each picture [B, H, W, 3] in 0..1, notes on how the model ran)."""
    say(f"reading {folder.name}", kept=KEPT)
    model, answers, total = FolderModel(folder, precision), [], len(pictures) * request.max_length
    bar = ProgressBar(total)
    for number, picture in enumerate(pictures, 1):
        stop_if_cancelled()

        def on_token(count: int, number: int = number) -> None:
            say(f"picture {number} of {len(pictures)}", f"token {count} of {request.max_length} at most", kept=KEPT)
            bar.update_absolute((number - 1) * request.max_length + count, total)

        answers.append(_spoken(model.describe(picture, request, on_token), number))
    return answers, model.notes


def _spoken(answer: Answer, number: int) -> Answer:
    if not answer.text:
        raise ValueError(
            f"question: the model had no words for picture {number}. Ask in another way, set sampling to 'random', or "
            "choose another model."
        )
    return answer
