"""A style for each of several objects: which of the given ones each object's mask gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from .style import Style

Assign = Literal["in turn", "one each"]
ASSIGNS: tuple[Assign, ...] = ("in turn", "one each")


def styles_of(fields: Mapping[str, Sequence[Any]]) -> list[Style]:
    """Styles of parallel lists, a field of ``Style`` each; a list of one serves all styles.

    Raises ValueError for an empty list, and for one that is neither of one nor of as many as the longest.
    """
    count = max(map(len, fields.values()))
    for name, values in fields.items():
        if len(values) not in (1, count) or not values:
            raise ValueError(
                f"{name}: one for all styles or one for each of the {count} is expected, got {len(values)}. "
                "Make the lists alike, e.g. with Create List."
            )
    return [Style(**{name: v[i if len(v) > 1 else 0] for name, v in fields.items()}) for i in range(count)]


def split_masks(masks: Sequence[Tensor]) -> list[Tensor]:
    """Each mask [H, W] of a list whose entries are masks or batches of them, in their order."""
    return [one for mask in masks for one in (mask.unbind(0) if mask.ndim == 3 else (mask,))]


def assigned(masks: Sequence[Tensor], styles: Sequence[Style], assign: Assign) -> list[Style]:
    """A style for each mask: the given ones in turn (1, 2, 1, 2, ...), or exactly one for each.

    Raises ValueError for no mask, and for another number of them where each style is to get one.
    """
    if assign not in ASSIGNS:
        raise ValueError(f"assign must be one of {', '.join(ASSIGNS)}, got {assign!r:.100}.")
    if not masks:
        raise ValueError("masks: at least one mask is expected, got none. Wire FastSAM's masks, or any MASK.")
    if assign == "one each" and len(masks) != len(styles):
        raise ValueError(
            f"masks: with 'one each' as many masks as styles are expected, got {len(masks)} for {len(styles)}. "
            "Set assign to 'in turn', or give as many LoRAs or prompts as there are masks."
        )
    return [styles[i % len(styles)]._replace(mask=mask) for i, mask in enumerate(masks)]
