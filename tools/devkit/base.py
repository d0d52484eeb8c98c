"""The private folder tree that the server works in, so that nobody's own models and outputs are touched."""

from __future__ import annotations

from pathlib import Path

from .links import link_file, link_folder

PACK = "comfyui-diffstyler"


def prepare_base(base: Path, pack_root: Path) -> Path:
    """Make a ComfyUI base directory with the pack in its custom_nodes and the demo's checkpoint. -> base"""
    for folder in ("custom_nodes", "input", "output", "temp", "user", "models/checkpoints", "models/loras"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    link_folder(pack_root, base / "custom_nodes" / PACK)
    for file in (pack_root / "demo").glob("*.safetensors"):
        link_file(file, base / "models" / "checkpoints" / file.name)
    return base
