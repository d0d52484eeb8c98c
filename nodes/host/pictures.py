"""Checks of pictures and masks that users wire in. Each error names the input, the value and the remedy."""

from __future__ import annotations

from torch import Tensor

from ...diffstyler_core.masks.mask import encoded_window
from .inputs import require_finite


def rgb_pictures(image: Tensor, name: str) -> Tensor:
    """An IMAGE [B, H, W, 3] of finite values."""
    if image.ndim != 4 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(
            f"{name}: RGB pictures [B, H, W, 3] are expected, got {list(image.shape)}. "
            "Flatten transparency first, e.g. with 'Split Image with Alpha'; turn greyscale into RGB."
        )
    require_finite(image, name)
    return image


def one_picture(image: Tensor, name: str) -> Tensor:
    """An IMAGE [1, H, W, 3] of finite values."""
    if image.ndim == 4 and image.shape[0] > 1:
        raise ValueError(
            f"{name}: one picture is expected, got a batch of {image.shape[0]}. Pick one with 'Image From Batch'."
        )
    return rgb_pictures(image, name)


def place_of(result: Tensor, content: Tensor) -> tuple[slice, slice]:
    """Rows and columns of content [1, H, W, 3] that result [B, h, w, 3] shows: all, or what VAE Encode keeps."""
    size, inner = tuple(content.shape[1:3]), tuple(result.shape[1:3])
    if inner == size:
        return slice(0, size[0]), slice(0, size[1])
    rows, columns = encoded_window(*size)
    kept = (rows.stop - rows.start, columns.stop - columns.start)
    if inner != kept:
        also = "" if kept == size else f" or {kept[1]} x {kept[0]}, as VAE Encode crops it"
        raise ValueError(
            f"result is {inner[1]} x {inner[0]} pixels and content {size[1]} x {size[0]}: the result must have the "
            f"content's size{also}. Wire the picture that was encoded, and resize nothing in between."
        )
    return rows, columns
