"""Lists of decoder layers as widgets hold them."""

from __future__ import annotations

from functools import partial

from ...diffstyler_core.injection.auto import ALL as ALL
from ...diffstyler_core.injection.auto import AUTO as AUTO
from ...diffstyler_core.injection.settings import Layers
from ...diffstyler_core.injection.sites import parse_layers
from ..host.checks.refusal import refusal


def layers_of(text: str, name: str) -> Layers:
    """A layer list as typed into a widget; None for 'all'. Raises ValueError that names the widget."""
    return None if text.strip() == ALL else parse_layers(text, name)


def readable_layers(**lists: str | None) -> bool | str:
    """For ``validate_inputs``: True, or what is wrong with one of the lists. None stands for a wire: not known yet."""
    known = {name: text for name, text in lists.items() if text is not None and text.strip() != AUTO}
    return refusal(*(partial(layers_of, text, name) for name, text in known.items()))
