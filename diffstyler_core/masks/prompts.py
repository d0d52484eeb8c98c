"""Points and boxes in a picture's pixels, as users write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

POINT_GRAMMAR = "'x, y' inside the object or 'x, y, -' outside it, separated by ';', e.g. '120, 80; 200, 150, -'"
BOX_GRAMMAR = "'x1, y1, x2, y2' from the top left to the bottom right corner, separated by ';', e.g. '10, 20, 200, 180'"


@dataclass(frozen=True)
class Point:
    """A place in the picture, in pixels from its top left corner, that the object covers or must not cover."""

    x: float
    y: float
    inside: bool = True

    def __str__(self) -> str:
        return f"({self.x:g}, {self.y:g}{'' if self.inside else ', -'})"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: x1 <= x < x2 and y1 <= y < y2."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __str__(self) -> str:
        return f"({self.x1:g}, {self.y1:g}, {self.x2:g}, {self.y2:g})"


def parse_points(text: str) -> list[Point]:
    """The points of a text such as '120, 80; 200, 150, -'. Raises ValueError for another form."""
    return [_point(entry) for entry in _entries(text)]


def parse_boxes(text: str) -> list[Box]:
    """The boxes of a text such as '10, 20, 200, 180; 5, 5, 50, 50'. Raises ValueError for another form."""
    return [_box(entry) for entry in _entries(text)]


def require_points(points: Sequence[Point], width: int, height: int) -> None:
    """Raises ValueError when a point lies outside a picture of ``width`` x ``height`` pixels."""
    for number, point in enumerate(points, 1):
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise ValueError(
                f"points: points must lie in the picture, which is {width} x {height} pixels "
                f"(x 0 to {width - 1}, y 0 to {height - 1}), got point {number} at {point}. Move it into the picture."
            )


def require_boxes(boxes: Sequence[Box], width: int, height: int) -> None:
    """Raises ValueError for a box without area, or with none of it in a picture of ``width`` x ``height`` pixels."""
    for number, box in enumerate(boxes, 1):
        if not all(map(math.isfinite, (box.x1, box.y1, box.x2, box.y2))) or box.x2 <= box.x1 or box.y2 <= box.y1:
            raise ValueError(
                f"boxes: a box needs x1 < x2 and y1 < y2, got box {number} {box}. "
                "Write the top left corner first, then the bottom right one."
            )
        if box.x2 <= 0 or box.y2 <= 0 or box.x1 >= width or box.y1 >= height:
            raise ValueError(
                f"boxes: boxes must touch the picture, which is {width} x {height} pixels, "
                f"got box {number} {box}. Move it into the picture."
            )


def _entries(text: str) -> list[str]:
    """What stands between the ';' and line ends; empty entries, as a ';' at the end makes them, do not count."""
    return [entry.strip() for entry in re.split(r"[;\n]", text) if entry.strip()]


def _point(entry: str) -> Point:
    parts = [part.strip() for part in entry.split(",")]
    if len(parts) == 2 or (len(parts) == 3 and parts[2] == "-"):
        numbers = _numbers(parts[:2])
        if numbers is not None:
            return Point(numbers[0], numbers[1], inside=len(parts) == 2)
    raise ValueError(f"points must be written as {POINT_GRAMMAR}; got {entry!r:.200}.")


def _box(entry: str) -> Box:
    numbers = _numbers(entry.split(","))
    if numbers is None or len(numbers) != 4:
        raise ValueError(f"boxes must be written as {BOX_GRAMMAR}; got {entry!r:.200}.")
    return Box(*numbers)


def _numbers(parts: Sequence[str]) -> list[float] | None:
    """Plain decimal numbers, or None when one is something else ('nan', '1e3', '' and '0x1' are)."""
    if not all(re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?\s*", part) for part in parts):
        return None
    return [float(part) for part in parts]
