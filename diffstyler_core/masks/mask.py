"""Masks: checked, resized by area, grown, feathered, and made as spatial ramps. Values 0..1, shape [H, W].

Of a clip a mask may be [frames, H, W]: one for each frame.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Profile = Literal["linear", "logistic", "step"]
PROFILES: tuple[Profile, ...] = ("linear", "logistic", "step")
CELL = 8
"""Pixels of a picture per latent pixel, to each side."""
ROUNDING = 1e-3
"""How far beyond 0..1 a mask may reach, as resampling filters leave it; it is clamped."""
BLOCK = 2**20
"""Values that are worked on at a time, in float64: large masks take little more memory than themselves."""


def one_mask(mask: Tensor, name: str) -> Tensor:
    """A MASK [1, H, W] or [H, W] as fp32 [H, W] on the CPU. Raises ValueError for a batch, NaN, values beyond 0..1."""
    if mask.ndim not in (2, 3) or (mask.ndim == 3 and mask.shape[0] != 1):
        count = f"a batch of {mask.shape[0]}" if mask.ndim == 3 else f"shape {list(mask.shape)}"
        raise ValueError(
            f"{name}: one mask [1, H, W] is expected, as there is one content picture; got {count}. "
            "Pick one of them, or give each a style of its own with Styles from Masks."
        )
    return _in_range(mask.reshape(mask.shape[-2:]), name)


def frame_masks(mask: Tensor, name: str) -> Tensor:
    """A MASK [B, H, W] or [H, W] as fp32 on the CPU: [H, W] of one for all frames, else [B, H, W], one for each.

    Raises ValueError for another shape, NaN, and values beyond 0..1.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(
            f"{name}: masks [B, H, W] are expected, got shape {list(mask.shape)}. Wire a MASK, one for all frames or "
            "one for each."
        )
    return _in_range(mask[0] if mask.ndim == 3 and len(mask) == 1 else mask, name)


def require_frames(mask: Tensor | None, count: int, name: str) -> None:
    """Raises ValueError for masks [B, H, W] of another number than ``count`` frames."""
    if mask is not None and mask.ndim == 3 and len(mask) != count:
        frames = f"each of the {count} frames" if count > 1 else "the one content picture"
        raise ValueError(
            f"{name}: one mask for all frames or one for {frames} is expected, got {len(mask)} masks. "
            "Pick some of them, or give each a style of its own with Styles from Masks."
        )


def _in_range(mask: Tensor, name: str) -> Tensor:
    flat = mask.detach().to("cpu", torch.float32)
    if flat.numel() == 0 or not torch.isfinite(flat).all():
        raise ValueError(f"{name} holds no values or values that are not finite (NaN): check the node that made it.")
    low, high = flat.min().item(), flat.max().item()
    if low < -ROUNDING or high > 1.0 + ROUNDING:
        raise ValueError(
            f"{name}: mask values lie in 0..1, got {low:.4g}..{high:.4g}. "
            "Divide by the largest value, or make the mask from an image channel with 'Convert Image to Mask'."
        )
    return flat.clamp(0.0, 1.0)


def encoded_window(height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a picture that the host's VAE Encode keeps: whole cells of 8 pixels, centred."""

    def kept(size: int) -> slice:
        start = size % CELL // 2
        return slice(start, start + size // CELL * CELL)

    return kept(height), kept(width)


def as_encoded(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask of an uncropped picture, cropped as that picture was to [height, width]; any other mask as it is."""
    window = mask[encoded_window(*mask.shape)]
    return window if window.shape == (height, width) else mask


def resize_by_area(mask: Tensor, height: int, width: int) -> Tensor:
    """Each new pixel is the exact mean of the area it covers: [H, W] -> [height, width]. 0 and 1 stay exact."""
    if mask.shape == (height, width):
        return mask
    out = mask.new_empty(height, width)
    for start, stop in _blocks(height, mask.shape[1] * max(1, mask.shape[0] // height)):
        rows = _means(mask, height, start, stop)
        across = _blocks(width, (stop - start) * max(1, mask.shape[1] // width))
        out[start:stop] = torch.cat([_means(rows.T, width, *block) for block in across]).T
    return out


def _blocks(rows: int, width: int) -> list[tuple[int, int]]:
    """(start, stop) of stretches of at most 64 rows of ``width`` values: about BLOCK values each, and narrow bands."""
    size = min(64, max(1, BLOCK // max(1, width)))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _means(mask: Tensor, new: int, start: int, stop: int) -> Tensor:
    """Rows start..stop of ``new`` ones, each the mean of the rows of [old, W] that it covers, in float64.

    Shares are counted in whole parts, so zeros are zeros.
    """
    old = mask.shape[0]
    first, last = start * old // new, -(-stop * old // new)
    i, j = torch.arange(start, stop)[:, None], torch.arange(first, last)[None]
    covered = torch.minimum((i + 1) * old, (j + 1) * new) - torch.maximum(i * old, j * new)
    return (covered.clamp(min=0).double() / old) @ mask[first:last].double()


def grow(mask: Tensor, pixels: int) -> Tensor:
    """Grey dilation of [H, W] by a near-round octagon of this radius; negative erodes."""
    if pixels < 0:
        return 1.0 - grow(1.0 - mask, -pixels)
    out = mask[None, None]
    for i in range(pixels):
        square = F.max_pool2d(out, 3, 1, 1)
        cross = torch.maximum(F.max_pool2d(out, (3, 1), 1, (1, 0)), F.max_pool2d(out, (1, 3), 1, (0, 1)))
        out = square if i % 2 else cross
    return out[0, 0]


def feather(mask: Tensor, pixels: int) -> Tensor:
    """Softens edges of [H, W] by a Gaussian that reaches ``pixels`` to each side (deviation: half of that)."""
    if pixels < 0:
        raise ValueError(f"a feather is 0 or more pixels wide, got {pixels}.")
    if pixels == 0:
        return mask
    from scipy import ndimage

    soft = ndimage.gaussian_filter(mask.numpy(), 0.5 * pixels, radius=pixels, mode="nearest", output="float64")
    return torch.from_numpy(soft).clamp_(0.0, 1.0).to(mask.dtype)


def shape_mask(mask: Tensor, height: int, width: int, grow_pixels: int = 0, feather_pixels: int = 0) -> Tensor:
    """A mask of any resolution grown and feathered in the pixels of a picture [height, width]."""
    if grow_pixels == 0 and feather_pixels == 0:
        return mask
    return feather(grow(resize_by_area(mask, height, width), grow_pixels), feather_pixels)


def fit_mask(
    mask: Tensor, size: tuple[int, int], picture: tuple[int, int], grow_pixels: int = 0, feather_pixels: int = 0
) -> Tensor:
    """A mask of any resolution at ``size`` (height, width), grown and feathered in pixels of ``picture``.

    A mask of the picture as it was before VAE Encode cropped it is cropped likewise; others are stretched. Of masks
    [frames, H, W] each by itself.
    """
    if mask.ndim == 3:
        return torch.stack([fit_mask(each, size, picture, grow_pixels, feather_pixels) for each in mask])
    return resize_by_area(shape_mask(as_encoded(mask, *picture), *picture, grow_pixels, feather_pixels), *size)


def ramp(
    height: int, width: int, profile: Profile, angle: float, centre: tuple[float, float], sharpness: float
) -> Tensor:
    """A transition from 0 to 1 across a picture [height, width], 0.5 on a line through ``centre``.

    angle: direction of increase in degrees; 0 to the right, 90 downwards. centre: (x, y) as shares of the size.
    sharpness: slope at the line. Linear: 1 spans the whole picture, 2 its middle half. Logistic: the same slope
    there, with soft ends. Step: has no slope; 1 from the line on.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}.")
    if min(height, width) < 1:
        raise ValueError(f"a ramp needs at least one pixel on each side, got {width} x {height} (width x height).")
    if not all(map(math.isfinite, (angle, *centre, sharpness))):
        raise ValueError(f"angle, centre and sharpness must be numbers, got {angle}, {centre} and {sharpness}.")
    if sharpness <= 0:
        raise ValueError(f"sharpness must be above 0, got {sharpness}: a flat ramp has no two sides.")
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x = (torch.arange(width, dtype=torch.float64) + 0.5) - centre[0] * width
    y = (torch.arange(height, dtype=torch.float64) + 0.5) - centre[1] * height
    extent = abs(dx) * width + abs(dy) * height  # the picture's own width seen along the direction
    out = torch.empty(height, width)
    for start, stop in _blocks(height, width):
        along = (x[None] * dx + y[start:stop, None] * dy) / extent
        if profile == "step":
            out[start:stop] = along >= -1e-9
        elif profile == "logistic":
            out[start:stop] = torch.sigmoid(4.0 * sharpness * along)
        else:
            out[start:stop] = (0.5 + sharpness * along).clamp(0.0, 1.0)
    return out
