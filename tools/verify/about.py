"""What a report says first: the checkpoint as the pack sees it, machine and versions; and settings that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.results_prompt import PICTURE_SIDE, Settings

BLOCKS = 12
"""Decoder layers of SD1 and SD2, which the paper's numbers are of."""


def settings_for(checkpoint: str, facts: Mapping[str, Any], steps: int, train_steps: int) -> Settings:
    """What the demo's results were made with; for other checkpoints the settings of the pack's templates.

    A capture that takes more than half of the free RAM is recomputed while sampling.
    """
    paper = facts["decoder_layers"] == BLOCKS
    feature, attention = ("4", "4-11") if paper else ("auto", "auto")
    storage = "memory" if facts["capture_bytes"] < facts["free_ram"] / 2 else "recompute"
    settings = Settings(
        checkpoint,
        steps,
        train_steps,
        facts["side"],
        feature=feature,
        attention=attention,
        storage=storage,
        saved=False,
    )
    if facts["demo"]:
        return settings
    large = facts["side"] > PICTURE_SIDE
    return settings._replace(cfg=7.5, learning_rate=0.0, batch=1, cropped=PICTURE_SIDE, checkpointing=large)


def about(name: str, version: str, facts: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """The report's first table. name: of the checkpoint's file; version: of the pack."""
    video = "none" if facts["vram"] is None else _gigabytes(facts["vram"])
    gpu = f", CUDA/HIP {facts['cuda']}" if facts["cuda"] else ""
    dynamic = ", dynamic VRAM" if facts["dynamic_vram"] else ""
    return {
        "checkpoint": name,
        "family": facts["family"],
        "UNet": f"{facts['parameters'] / 1e6:.0f} M parameters in {facts['weights']}, computes in {facts['computes']}",
        "auto": f"{facts['side']} pixels; {facts['auto']}; "
        f"a capture of {settings.steps} steps takes {_gigabytes(facts['capture_bytes'])} in fp16",
        "settings": f"{settings.steps} steps, cfg {settings.cfg:g}, {settings.train_steps} training steps, features of "
        f"layers {settings.feature}, attention of layers {settings.attention}, capture: {settings.storage}",
        "device": f"{facts['device']}; video memory {video}; memory mode {facts['memory_mode']}{dynamic}",
        "machine": f"{facts['system']}; RAM {_gigabytes(facts['ram'])}; {facts['threads']} threads",
        "versions": f"DiffStyler {version}, ComfyUI {facts['comfyui']}, torch {facts['torch']}{gpu}, "
        f"Python {facts['python']}, {facts['attention']}",
    }


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
