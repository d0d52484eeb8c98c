"""DiffStyler for ComfyUI: one picture in the style of another, its structure kept."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """The host's V3 entry point. Nothing of the host is imported before it calls this."""
    from comfy_api.latest import io

    from .nodes.host.requirement import require_host

    require_host(io)
    from .nodes.extension import DiffStylerExtension

    return DiffStylerExtension()
