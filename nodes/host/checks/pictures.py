"""IMAGEs: RGB, finite, not empty, and of sizes that belong together."""

from __future__ import annotations

from torch import Tensor

from ....diffstyler_core.masks.mask import encoded_window
from .numbers import require_finite

LEAST_STYLE = 64
"""Pixels on each side of a style picture."""
REMEDIES = {
    4: "Flatten its transparency first, e.g. with 'Split Image with Alpha'.",
    1: "Turn the greyscale picture into RGB first.",
}
"""By the number of channels."""


def rgb_pictures(image: Tensor, name: str) -> Tensor:
    """An IMAGE [B, H, W, 3] of finite values, with at least one pixel."""
    if image.ndim != 4 or image.shape[-1] != 3:
        remedy = REMEDIES.get(image.shape[-1], "Wire an IMAGE.") if image.ndim == 4 else "Wire an IMAGE."
        raise ValueError(f"{name}: RGB pictures [B, H, W, 3] are expected, got {list(image.shape)}. {remedy}")
    if not image.numel():
        raise ValueError(f"{name}: a picture with pixels is expected, got {list(image.shape)}. Wire a picture.")
    require_finite(image, name)
    return image


def unit_pictures(image: Tensor, name: str) -> Tensor:
    """An IMAGE [B, H, W, 3] in 0..1, fp32, on the CPU."""
    return rgb_pictures(image, name).detach().to("cpu").float().clamp(0.0, 1.0)


def one_picture(image: Tensor, name: str) -> Tensor:
    """An IMAGE [1, H, W, 3] of finite values."""
    if image.ndim == 4 and image.shape[0] > 1:
        raise ValueError(
            f"{name}: one picture is expected, got a batch of {image.shape[0]}. Pick one with 'Image From Batch'."
        )
    return rgb_pictures(image, name)


def style_pictures(image: Tensor) -> Tensor:
    """Pictures to learn a style from [B, H, W, 3], in 0..1, of LEAST_STYLE pixels or more on each side."""
    pictures = unit_pictures(image, "style_image")
    height, width = pictures.shape[1:3]
    if min(height, width) < LEAST_STYLE:
        raise ValueError(
            f"style_image: pictures need at least {LEAST_STYLE} pixels on each side, got {width} x {height}. "
            "Use a larger picture; enlarging a tiny one teaches only blur."
        )
    return pictures


def place_of(result: Tensor, content: Tensor, name: str = "result") -> tuple[slice, slice]:
    """Rows and columns of content [B, H, W, 3] that result [B, h, w, 3] shows: all, or what VAE Encode keeps.

    name: the result's input. Raises ValueError for any other size.
    """
    size, inner = tuple(content.shape[1:3]), tuple(result.shape[1:3])
    if inner == size:
        return slice(0, size[0]), slice(0, size[1])
    rows, columns = encoded_window(*size)
    kept = (rows.stop - rows.start, columns.stop - columns.start)
    if inner != kept:
        also = "" if kept == size else f" or {kept[1]} x {kept[0]}, as VAE Encode crops it"
        raise ValueError(
            f"{name} is {inner[1]} x {inner[0]} pixels and content {size[1]} x {size[0]}: {name} must have the "
            f"content's size{also}. Wire the picture that was encoded, and resize nothing in between."
        )
    return rows, columns
