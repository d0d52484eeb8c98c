"""A result and its content made to one size by a stated rule, and which of several belong together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..masks.mask import encoded_window, fit_mask, one_mask, resize_by_area

ASPECT = 0.01
"""How much two aspect ratios may differ, relatively, and still be one: sizes are rounded to multiples of 8."""


class Pair(NamedTuple):
    """Pictures [H, W, 3] of one size, and what was done to make them so ('' for nothing)."""

    result: Tensor
    content: Tensor
    note: str


def matched(result: Tensor, content: Tensor) -> Pair:
    """The two pictures at one size.

    A result of the size that VAE Encode crops a content to is held against that part of it. Of other sizes with one
    aspect ratio the larger picture is scaled down by area. Raises ValueError for other aspect ratios.
    """
    size, wanted = tuple(result.shape[:2]), tuple(content.shape[:2])
    own, other = size_words(size), size_words(wanted)
    if size == wanted:
        return Pair(result, content, "")
    window = content[encoded_window(*wanted)]
    if tuple(window.shape[:2]) == size:
        return Pair(result, window, f"content cropped to {own}, as VAE Encode does")
    if abs(size[1] * wanted[0] / (size[0] * wanted[1]) - 1.0) > ASPECT:
        raise ValueError(
            f"result is {own} pixels and content {other}: they need one shape to be compared. "
            "Crop one of them alike, or scale both to one size before."
        )
    if size[0] * size[1] > wanted[0] * wanted[1]:
        return Pair(scaled(result, wanted), content, f"result scaled from {own} to {other}, by area")
    return Pair(result, scaled(content, size), f"content scaled from {other} to {own}, by area")


def size_words(size: tuple[int, ...]) -> str:
    """(height, width) as people read it: width x height."""
    return f"{size[1]} x {size[0]}"


def scaled(picture: Tensor, size: tuple[int, ...]) -> Tensor:
    """[H, W, 3] -> [*size, 3]; each new pixel is the mean of the area it covers."""
    return torch.stack([resize_by_area(channel, size[0], size[1]) for channel in picture.unbind(-1)], dim=-1)


def one_each(pictures: Tensor, count: int, name: str) -> list[Tensor]:
    """The pictures or masks of ``count`` results: one for all, or as many. Raises ValueError for other numbers."""
    if len(pictures) not in (1, count):
        raise ValueError(
            f"{name}: one for all results or one for each is expected, got {len(pictures)} for {count} results. "
            "Pick some with 'Image From Batch'."
        )
    return [pictures[i if len(pictures) > 1 else 0] for i in range(count)]


def masks_for(mask: Tensor | None, count: int) -> list[Tensor | None]:
    """A mask [H, W] for each result, checked; None where none is wired."""
    if mask is None:
        return [None] * count
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3:
        raise ValueError(f"mask: masks [B, H, W] are expected, got {list(mask.shape)}. Wire a MASK.")
    return [one_mask(each, "mask") for each in one_each(mask, count, "mask")]


def fitted(mask: Tensor | None, picture: Tensor) -> Tensor | None:
    """A mask of any resolution at the size of a picture [H, W, 3]; cropped where the picture was, by VAE Encode."""
    size = (picture.shape[0], picture.shape[1])
    return None if mask is None else fit_mask(mask, size, size)
