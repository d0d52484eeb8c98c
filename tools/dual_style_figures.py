"""The dual-style document's seven figures of a picture, and CLIP's of its two halves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffstyler_core.metrics.available import NotAvailable, value_or_reason
from diffstyler_core.metrics.language import clip_direction, clip_similarity
from diffstyler_core.metrics.pixels import psnr, rms, total_variation
from diffstyler_core.metrics.ssim import ssim

Value = float | NotAvailable
Figures = dict[str, Value]
SIMILARITY, QUALITY = ("L2", "LPIPS"), ("PSNR", "Smooth.", "SSIM")
CLIP = ("CLIP", "CLIP r.", "CLIP l.", "DCLIP", "DCLIP r.", "DCLIP l.")
ROWS = {"Similarity": SIMILARITY, "Image Quality": QUALITY, "CLIP": CLIP}
"""As the document's tables are laid out."""

Distance = Callable[[Tensor, Tensor], float]


class Clip:
    """A CLIP from a local folder, as transformers saves it. Raises NotAvailable where there is none."""

    def __init__(self, folder: Path | None) -> None:
        if folder is None:
            raise NotAvailable("no CLIP folder was given (--clip)")
        if not (folder / "config.json").is_file():
            raise NotAvailable(f"there is no CLIP as transformers saves it in {folder.name!r}")
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self._model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        self._tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        size = self._model.config.vision_config.image_size
        self._prepare = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})

    @torch.inference_mode()
    def picture(self, picture: Tensor) -> Tensor:
        """The embedding [D] of a picture [H, W, 3] in 0..1."""
        pixels = self._prepare(images=picture.numpy(), do_rescale=False, return_tensors="pt")["pixel_values"]
        return self._model.visual_projection(self._model.vision_model(pixel_values=pixels)[1])[0]

    @torch.inference_mode()
    def words(self, text: str) -> Tensor:
        """The embedding [D] of a prompt, cut after CLIP's 77 tokens."""
        given = self._tokens(text, truncation=True, max_length=77, return_tensors="pt")
        return self._model.text_projection(self._model.text_model(**given)[1])[0]


def read_picture(path: Path) -> Tensor:
    """[H, W, 3] in 0..1."""
    with Image.open(path) as file:
        return torch.from_numpy(np.asarray(file.convert("RGB"), dtype=np.float32) / 255.0)


def pixel_figures(result: Tensor, content: Tensor, lpips: Distance | NotAvailable) -> Figures:
    """Figures of a result [H, W, 3] against its content. L2: the Euclidean distance of all values in 0..1."""
    weight = torch.ones(result.shape[:2])
    return {
        "L2": rms(result, content, weight) * math.sqrt(result.numel()),
        "LPIPS": value_or_reason(lambda distance: distance(result, content), lpips),
        "PSNR": psnr(result, content, weight),
        "Smooth.": total_variation(result, weight),
        "SSIM": ssim(result, content, weight),
    }


def clip_figures(result: Tensor, content: Tensor, source: str, targets: Mapping[str, str], clip: Any) -> Figures:
    """CLIP's figures; ``targets`` are the prompts of '' (the whole), ' r.' and ' l.' (that half alone)."""
    half = result.shape[1] // 2
    parts = {"": slice(None), " r.": slice(half, None), " l.": slice(None, half)}
    found: Figures = {}
    for part, columns in parts.items():

        def seen(picture: Tensor, model: Clip, columns: slice = columns) -> Tensor:
            return model.picture(picture[:, columns].contiguous())

        def similarity(model: Clip, seen: Any = seen, target: str = targets[part]) -> float:
            return clip_similarity(seen(result, model), model.words(target))

        def direction(model: Clip, seen: Any = seen, target: str = targets[part]) -> float:
            return clip_direction(seen(content, model), seen(result, model), model.words(source), model.words(target))

        found[f"CLIP{part}"] = value_or_reason(similarity, clip)
        found[f"DCLIP{part}"] = value_or_reason(direction, clip)
    return found
