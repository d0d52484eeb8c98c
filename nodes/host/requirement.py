"""What the pack needs of the host, asked once, before its nodes are defined."""

from __future__ import annotations

import inspect
from typing import Any

OLDEST = "0.24.0"


def require_host(io: Any) -> None:
    """io: the host's `comfy_api.latest.io`. ImportError in one sentence if it lacks what the nodes' schemas use."""
    missing = missing_from(io)
    if missing:
        raise ImportError(
            f"DiffStyler needs ComfyUI {OLDEST} or newer: this one has no {', no '.join(missing)}. "
            "Update ComfyUI and start it again."
        )


def missing_from(io: Any) -> tuple[str, ...]:
    """The names of what a host's `io` lacks."""
    missing = [f"io.{name}" for name in ("BoundingBox",) if not hasattr(io, name)]
    if "has_intermediate_output" not in inspect.signature(io.Schema).parameters:
        missing.append("io.Schema(has_intermediate_output)")
    return tuple(missing)
