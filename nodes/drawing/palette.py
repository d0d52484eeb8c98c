"""The colours of everything that is drawn."""

from __future__ import annotations

Colour = tuple[float, float, float]
"""Red, green and blue, 0..1."""

PAGE: Colour = (0.125, 0.125, 0.14)
INK: Colour = (0.88, 0.88, 0.88)
DIM: Colour = (0.65, 0.65, 0.67)
FAINT: Colour = (0.33, 0.33, 0.36)
STRIPE: Colour = (0.17, 0.17, 0.195)

SERIES: tuple[Colour, ...] = (
    (0.902, 0.624, 0.000),
    (0.337, 0.706, 0.914),
    (0.000, 0.620, 0.451),
    (0.941, 0.894, 0.259),
    (0.800, 0.475, 0.655),
    (0.835, 0.369, 0.000),
    (0.000, 0.447, 0.698),
)
"""Okabe and Ito 2008, without black: told apart by colour-blind eyes, and on a dark page."""
TINTS = (0.0, 0.5, 0.25)
"""How much white is in the first seven colours, the next seven and those after them; then they begin anew."""


def colour_of(index: int) -> Colour:
    """The colour of style, LoRA, line or object ``index`` (from 0)."""
    white = TINTS[index // len(SERIES) % len(TINTS)]
    red, green, blue = (level + white * (1.0 - level) for level in SERIES[index % len(SERIES)])
    return red, green, blue
