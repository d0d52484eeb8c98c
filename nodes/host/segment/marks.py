"""Points and boxes that come over wires, in the host's forms and the usual ones of other packs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ....diffstyler_core.masks.prompts import Box, Point

T = TypeVar("T")
BOX_FORMS = "{x, y, width, height} (BOUNDING_BOX), [x1, y1, x2, y2] (BBOX), or a list of those"
POINT_FORMS = "[x, y], [x, y, 0] for a point outside, {x, y}, or a list of those"


def wired_boxes(value: Any, pictures: int) -> list[list[Box]]:
    """The boxes of each picture. A list with a list per picture gives each its own; else all get the same."""
    return _per_picture(value, pictures, _box, "box_input", BOX_FORMS)


def wired_points(value: Any, pictures: int) -> list[list[Point]]:
    """The points of each picture. A list with a list per picture gives each its own; else all get the same."""
    return _per_picture(value, pictures, _point, "point_input", POINT_FORMS)


def _per_picture(value: Any, pictures: int, make: Callable[[Any], T | None], name: str, forms: str) -> list[list[T]]:
    if value is None:
        return [[] for _ in range(pictures)]
    value = _plain(value)
    shared = _all_made(value, make)
    if shared is not None:
        return [shared] * pictures
    lists = [_all_made(_plain(part), make) for part in value] if isinstance(value, Sequence) else [None]
    made = [part for part in lists if part is not None]
    if len(made) != len(lists):
        raise ValueError(f"{name} must be {forms}; got {str(value)[:200]}.")
    if len(made) not in (1, pictures):
        raise ValueError(
            f"{name}: one list for all pictures or one for each is expected, got {len(made)} lists for "
            f"{pictures} pictures. Pick the one you mean."
        )
    return made if len(made) == pictures else made * pictures


def _all_made(value: Any, make: Callable[[Any], T | None]) -> list[T] | None:
    """A single mark, or a list in which everything is one; None for anything else."""
    single = make(value)
    if single is not None:
        return [single]
    if not isinstance(value, (list, tuple)):
        return None
    made = [make(_plain(part)) for part in value]
    found = [part for part in made if part is not None]
    return found if len(found) == len(made) else None


def _box(value: Any) -> Box | None:
    if isinstance(value, dict):
        numbers = _numbers([value.get(key) for key in ("x", "y", "width", "height")])
        if numbers is None:
            return None
        x, y, width, height = numbers
        return Box(x, y, x + width, y + height)
    numbers = _numbers(value)
    return Box(*numbers) if numbers is not None and len(numbers) == 4 else None


def _point(value: Any) -> Point | None:
    if isinstance(value, dict):
        value = [value.get("x"), value.get("y"), value.get("label", 1)]
    numbers = _numbers(value)
    if numbers is None or len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] not in (0, 1)):
        return None
    return Point(numbers[0], numbers[1], inside=len(numbers) == 2 or numbers[2] == 1)


def _numbers(value: Any) -> list[float] | None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, (int, float)) for part in value):
        return None
    return [float(part) for part in value]


def _plain(value: Any) -> Any:
    """Tensors and arrays as lists of numbers."""
    return value.tolist() if hasattr(value, "tolist") else value
