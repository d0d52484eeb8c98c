"""What there is to say of a chain of styles before it is sampled."""

from __future__ import annotations

from ..lora.schedule import LoraSchedule
from .style import Style, Styles


def describe(styles: Styles) -> str:
    """One line per style of the chain: where it goes, what acts, and what it has of its own."""
    return "\n".join(_line(style, number) for number, style in enumerate(styles, 1))


def _line(style: Style, number: int) -> str:
    where = "the rest of the picture" if style.mask is None else f"mask, {100 * style.mask.mean().item():.1f} %"
    empty = " (empty: no effect)" if style.mask is not None and not style.mask.any() else ""
    turns = f", {len(style.lora.entries)} LoRAs in turn" if isinstance(style.lora, LoraSchedule) else ""
    bare = ", base model" if style.reference is None else ""
    own = bare if style.lora is None else turns
    own += "" if style.reference is None else f", {style.reference}"
    own += "" if style.features is None else ", its own features"
    own += "" if style.injection is None else f", {style.injection}"
    return f"{style.label(number)}: {where}{empty}{own}"
