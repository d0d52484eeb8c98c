"""The region nodes with short defaults, what they show, and chains of styles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

PROMPT = tiny.make_prompt(1)


def run(node, **inputs: Any):
    """(the outputs, the words on the node, the picture on it [H, W, 3] in 0..255 or None)."""
    out = node.execute(**inputs)
    (text,) = out.ui["text"]
    if "images" not in out.ui:
        return out.args, text, None
    (file,) = out.ui["images"]
    assert file["type"] == "temp"
    with Image.open(Path(folder_paths.get_temp_directory()) / file["subfolder"] / file["filename"]) as picture:
        return out.args, text, np.asarray(picture)


def switch(pack, lora=None, **changes: Any):
    settings = {
        "strength": 1.0, "start_percent": 0.0, "end_percent": 0.6, "ramp_in_percent": 0.0, "ramp_out_percent": 0.0,
        "name": "",
    }  # fmt: skip
    return run(pack.pipeline.switch.LoraSwitch, lora={} if lora is None else lora, **{**settings, **changes})


def ramp(pack, **changes: Any):
    settings = {"width": 8, "height": 4, "profile": "linear", "sharpness": 1.0, "angle": 0.0}
    return run(pack.masks.ramp.SpatialRampMask, **{**settings, "centre_x": 0.5, "centre_y": 0.5, **changes})


def preview(pack, styles, content, mask_grow=0, mask_feather=0):
    node = pack.masks.preview.PreviewStyles
    return run(node, styles=styles, content=content, mask_grow=mask_grow, mask_feather=mask_feather)


def paste(pack, result, content, grow=0, feather=0, **which: Any):
    """(the picture, the words)."""
    node = pack.masks.paste.PasteContent
    (image,), text, _ = run(node, result=result, content=content, grow=grow, feather=feather, **which)
    return image, text


def styles(pack, *masks: torch.Tensor | None):
    """A chain of Style nodes with these masks."""
    chain = ()
    for mask in masks:
        chain = run(pack.pipeline.style.StyleNode, lora={}, positive=PROMPT, strength=1.0, mask=mask, previous=chain)[
            0
        ][0]
    return chain


def pictures(seed: int, height: int, width: int, count: int = 1) -> torch.Tensor:
    """IMAGE [count, H, W, 3] of noise."""
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def refuses(*words: str):
    """A ValueError that carries every word."""
    return pytest.raises(ValueError, match="".join(f"(?=.*{re.escape(word)})" for word in words))
