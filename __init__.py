"""DiffStyler for ComfyUI: one picture in the style of another, its structure kept."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """The host's V3 entry point. Nothing of the host is imported before it calls this."""
    from .nodes.extension import DiffStylerExtension

    return DiffStylerExtension()
