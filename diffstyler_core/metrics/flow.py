"""Dense optical flow between two pictures, by OpenCV."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .pixels import LUMA

LEAST = 64
"""Pixels on each side below which the coarsest level of the search holds too little to go by."""


def optical_flow(frame: Tensor, following: Tensor) -> Tensor:
    """[H, W, 2] in pixels (right, down): where each pixel of a frame [H, W, 3] in 0..1 is in the following one.

    Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", in OpenCV's preset MEDIUM, on brightness in
    256 steps. Raises ValueError for sizes that differ or are below LEAST, ImportError without OpenCV.
    """
    cv2 = _opencv()
    if frame.shape != following.shape or min(frame.shape[:2]) < LEAST:
        raise ValueError(
            f"optical flow needs two pictures of one size, at least {LEAST} pixels on each side, "
            f"got {list(frame.shape)} and {list(following.shape)}."
        )
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    one, other = ((picture.float() @ torch.tensor(LUMA) * 255.0).round().byte() for picture in (frame, following))
    return torch.from_numpy(search.calc(one.contiguous().numpy(), other.contiguous().numpy(), None))


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"optical flow needs the package opencv-python ({error}). Install the pack's requirements.txt."
        ) from error
    return cv2
