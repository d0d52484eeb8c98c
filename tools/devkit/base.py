"""The private folder tree that the server works in, so that nobody's own models and outputs are touched."""

from __future__ import annotations

from pathlib import Path

from .links import link_folder

PACK = "comfyui-diffstyler"


def prepare_base(base: Path, pack_root: Path) -> Path:
    """Make a ComfyUI base directory with the pack linked into its custom_nodes. -> base"""
    for folder in ("custom_nodes", "input", "output", "temp", "user", "models/checkpoints", "models/loras"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    link_folder(pack_root, base / "custom_nodes" / PACK)
    return base
