"""The one-style workflow as it is shipped, at a size that takes seconds on a CPU."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tools.workflow_api import set_input

FILE = Path(__file__).parents[1] / "workflows" / "DiffStyler - one style.json"
CHECKPOINT, CONTENT, TRAIN, INVERT, CAPTURE, SAMPLER, RESULT = "1", "2", "10", "11", "12", "13", "15"
SETTINGS: dict[str, dict[str, Any]] = {
    "DiffStyler_ScalePicture": {"size": 64},
    "DiffStyler_TrainStyleLoRA": {"steps": 3, "resolution": 64, "batch_size": 1, "rank": 2},
    "DiffStyler_DDIMInvert": {"steps": 10},
}
CUSTOM = {
    "preset": "custom", "preset.feature_end_percent": 0.6, "preset.attention_end_percent": 0.5,
    "preset.attention_mode": "adaptive", "preset.blend": "qk",
}  # fmt: skip


def small_run(**more: dict[str, Any]):
    """An API-format prompt. ``more``: node class without its prefix -> inputs to set on top."""
    prompt = json.loads(FILE.read_text(encoding="utf-8"))
    prompt[SAMPLER]["inputs"] |= CUSTOM
    for target, inputs in [*SETTINGS.items(), *((f"DiffStyler_{name}", inputs) for name, inputs in more.items())]:
        for name, value in inputs.items():
            set_input(prompt, target, name, value)
    return prompt


def with_nodes(prompt, **nodes):
    """The prompt with more nodes: ``a=("SaveLoRA", {"lora": ["10", 0]})``."""
    prompt = copy.deepcopy(prompt)
    prompt.update({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})
    return prompt


def sampled(model, seed=0, latent=None, **more):
    """Nodes of a stock KSampler run that ends in a saved picture, on prompts 8 and 9 of the workflow."""
    settings = {"seed": seed, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    wires = {"model": model, "positive": ["8", 0], "negative": ["9", 0], "latent_image": latent or ["4", 0]}
    return {
        "k": ("KSampler", {**settings, **wires, **more}),
        "kd": ("VAEDecode", {"samples": ["k", 0], "vae": [CHECKPOINT, 2]}),
        "ks": ("SaveImage", {"images": ["kd", 0], "filename_prefix": "plain"}),
    }


def only(prompt, *ends):
    """The part of a prompt that the given nodes need, themselves included."""
    kept, todo = set(), list(ends)
    while todo:
        node_id = todo.pop()
        if node_id not in kept:
            kept.add(node_id)
            links = [value for value in prompt[node_id]["inputs"].values() if isinstance(value, list)]
            todo += [str(link[0]) for link in links]
    return {node_id: prompt[node_id] for node_id in kept}
