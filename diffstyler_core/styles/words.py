"""What there is to say of a chain of styles before it is sampled."""

from __future__ import annotations

from torch import Tensor

from ..lora.schedule import LoraSchedule
from .style import Style, Styles


def describe(styles: Styles) -> str:
    """One line per style of the chain: where it goes, what acts, and what it has of its own."""
    return "\n".join(_line(style, number) for number, style in enumerate(styles, 1))


def _line(style: Style, number: int) -> str:
    where = "the rest of the picture" if style.mask is None else _masked(style.mask)
    empty = " (empty: no effect)" if style.mask is not None and not style.mask.any() else ""
    turns = f", {len(style.lora.entries)} LoRAs in turn" if isinstance(style.lora, LoraSchedule) else ""
    bare = ", base model" if style.reference is None else ""
    own = bare if style.lora is None else turns
    own += "" if style.reference is None else f", {style.reference}"
    own += "" if style.features is None else ", its own features"
    own += "" if style.injection is None else f", {style.injection}"
    return f"{style.label(number)}: {where}{empty}{own}"


def _masked(mask: Tensor) -> str:
    """What a mask, or the masks of a clip's frames, cover of the picture."""
    called = "mask" if mask.ndim == 2 else f"{len(mask)} masks, one for each frame"
    return f"{called}, {100 * mask.mean().item():.1f} %"
