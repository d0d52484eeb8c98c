"""How a node tells what it found."""

from __future__ import annotations

import json
from typing import Any


def told(**found: Any) -> dict[str, Any]:
    """A node's output: its findings as JSON, shown as text. Figures that are no finite number become null."""
    return {"ui": {"text": [json.dumps({name: _plain(value) for name, value in found.items()})]}}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not -1e300 < value < 1e300 else value
