"""The checkpoint that is verified: refused by a sentence when it is none, and shown to the server without a copy."""

from __future__ import annotations

import json
from pathlib import Path

from tools.devkit.links import linked

ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth")
UNET = ("model.diffusion_model.",)
HEADER_LIMIT = 100_000_000
"""Bytes that a safetensors header may have, as the format's own reader has it."""


def readable_checkpoint(path: Path, told: str) -> Path:
    """The path. Raises ValueError for what is missing, no checkpoint file, or a file without a UNet of SD's layout."""
    if not path.is_file():
        raise ValueError(f"there is no file {told!r}")
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{told!r} is no checkpoint: its name ends in none of {', '.join(ENDINGS)}")
    if path.suffix.lower() in (".safetensors", ".sft"):
        keys = _keys(path, told)
        if not any(key.startswith(UNET) for key in keys):
            raise ValueError(
                f"{told!r} holds no whole checkpoint: none of its {len(keys)} tensors lies under {UNET[0]} (a LoRA, a "
                "VAE or a diffusers UNet?). Give a checkpoint with UNet, text encoder and VAE in one file"
            )
    return path


def _keys(path: Path, told: str) -> list[str]:
    """The tensors' names of a safetensors file."""
    damaged = f"{told!r} is no safetensors file, or a damaged one (an interrupted download?)"
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(HEADER_LIMIT, path.stat().st_size):
            raise ValueError(damaged)
        try:
            header = json.loads(file.read(size))
        except ValueError as error:
            raise ValueError(damaged) from error
    if not isinstance(header, dict):
        raise ValueError(damaged)
    return [key for key in header if key != "__metadata__"]


def staged(path: Path, base: Path) -> tuple[str, ...]:
    """Puts a link to the checkpoint where the server of `base` finds it. -> further arguments of the server

    Where the system knows no link to it (another disk on Windows), the file's folder is named to the server instead.
    """
    if linked(path, base / "models" / "checkpoints" / path.name):
        return ()
    config = base / "checkpoint_folder.yaml"
    folder = json.dumps(str(path.parent), ensure_ascii=False)  # a JSON string is a YAML string
    config.write_text(f"verify:\n  checkpoints: {folder}\n", encoding="utf-8")
    return ("--extra-model-paths-config", str(config))
