"""A style: what acts (a LoRA or a switch of LoRAs), with which prompt, with what injected, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..injection.capture import Capture
from ..injection.reference import Reference
from ..injection.settings import InjectionSettings
from ..lora.schedule import Lora, LoraSchedule
from ..masks.mask import fit_mask, frame_masks, require_frames
from .regions import Regions, share, style_of_the_rest


class Style(NamedTuple):
    """One region's style (DiffStyler 2026, eq. 8: theta + d_i, c_i, M_i, f_i, A_i).

    lora: a LoRA for all steps, a schedule of LoRAs, or None for the base model. strength: of it; times a schedule
    entry's own. positive: its prompt's conditioning, opaque here. mask: [H, W] in 0..1 of any resolution, or one for
    each frame of a clip [frames, H, W]; None: the rest of the picture. features, injection: its own capture and
    settings; None: those of the run. name: the user's. reference: another picture whose own attention is the style, or
    None.
    """

    lora: Lora | LoraSchedule | None
    positive: object
    strength: float = 1.0
    mask: Tensor | None = None
    features: Capture | None = None
    injection: InjectionSettings | None = None
    name: str = ""
    reference: Reference | None = None

    def label(self, number: int) -> str:
        """What words and errors call it as the chain's ``number``: "style 2", or "style 2 'ink'"."""
        return f"style {number} {self.name!r}" if self.name else f"style {number}"


Styles = tuple[Style, ...]


def add_style(styles: Styles, style: Style) -> Styles:
    """The chain with one more style.

    Raises ValueError for a strength or mask that is none, or a second style without a mask.
    """
    label = style.label(len(styles) + 1)
    if not math.isfinite(style.strength):
        raise ValueError(f"strength of {label} must be a number, got {style.strength}.")
    if style.mask is None:
        chain = (*styles, style)
        style_of_the_rest([s.mask for s in chain], [s.label(number) for number, s in enumerate(chain, 1)])
        return chain
    return (*styles, style._replace(mask=frame_masks(style.mask, f"mask of {label}")))


def require_masks_fit(styles: Styles, frames: int) -> None:
    """Raises ValueError for a style that has masks of its own for another number of frames."""
    for number, style in enumerate(styles, 1):
        require_frames(style.mask, frames, f"mask of {style.label(number)}")


def frame_count_of(styles: Styles) -> int | None:
    """For how many frames the styles have masks, by the first that has one for each; None: one mask is for all."""
    return next((len(style.mask) for style in styles if style.mask is not None and style.mask.ndim == 3), None)


def masks_of(
    styles: Sequence[Style], size: tuple[int, int], picture: tuple[int, int], grow: int = 0, feather: int = 0
) -> list[Tensor | None]:
    """The styles' masks at ``size`` (height, width), grown and feathered in pixels of ``picture``."""
    return [None if s.mask is None else fit_mask(s.mask, size, picture, grow, feather) for s in styles]


def regions_of(
    styles: Sequence[Style], latent: tuple[int, int], picture: tuple[int, int], grow: int = 0, feather: int = 0
) -> Regions:
    """The styles' shares at ``latent`` (height, width), masks grown and feathered in pixels of ``picture``."""
    return share(masks_of(styles, latent, picture, grow, feather), *latent)
