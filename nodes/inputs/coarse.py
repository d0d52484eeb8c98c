"""Which cross-attention layers are coarse: a preset that is resolved for each model, or a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy_api.latest import io

from ...diffstyler_core.injection.cross_layers import CrossLayer, coarse_as_deadiff, coarse_by_grid, require_layers
from ...diffstyler_core.injection.sites import parse_layers
from .preset import CUSTOM

RULES: dict[str, Callable[[Sequence[CrossLayer]], tuple[int, ...]]] = {
    "as DEADiff": coarse_as_deadiff,
    "coarse grids": coarse_by_grid,
}
LIST = "coarse_layers"

ChosenLayers = dict[str, Any] | None
"""A choice as the host hands it over: {the input's id: its name}, and for 'custom' the list.

None where the prompt names no choice, or one that there is not: the host hands none over then.
"""


def coarse_input(name: str, tooltip: str) -> io.DynamicCombo.Input:
    """The widget; the list shows when it is 'custom'."""
    own = io.String.Input(LIST, default="4-8", tooltip="Numbers of the coarse layers: a list like 4-8 or 4,6-8.")
    named = [io.DynamicCombo.Option(rule, []) for rule in RULES]
    return io.DynamicCombo.Input(name, options=[*named, io.DynamicCombo.Option(CUSTOM, [own])], tooltip=tooltip)


def coarse_of(chosen: ChosenLayers, layers: Sequence[CrossLayer], name: str) -> tuple[int, ...]:
    """The numbers that a choice stands for on a model of these layers.

    Raises ValueError for a choice that there is not, a list that cannot be read, and layers that do not exist.
    """
    said = None if chosen is None else chosen[name]
    if chosen is not None and said == CUSTOM:
        wanted = parse_layers(chosen[LIST], LIST)
        require_layers(wanted, layers, LIST)
        return wanted
    if said not in RULES:
        raise ValueError(f"{name} must be one of {[*RULES, CUSTOM]}, got {said!r}.")
    return RULES[said](layers)
