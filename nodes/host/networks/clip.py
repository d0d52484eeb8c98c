"""How well pictures fit a text, by a CLIP that the user has: the host's, or a local folder of transformers'."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from torch import Tensor
from torch.nn import functional

from ..paths import is_inside

NO_FOLDER = "none"
FOLDERS = ("text_encoders", "clip_vision", "fastsam")  # the host's models/clip is one of text_encoders' folders
TOGETHER = 16  # pictures at a time


@dataclass(frozen=True)
class TextRanker:
    """A text's embedding [D], and what embeds pictures [N, size, size, 3] as [N, D] in the same space."""

    text: Tensor
    embed: Callable[[Tensor], Tensor]
    size: int

    def rank(self, pictures: Tensor) -> Tensor:
        """Cosine similarity of each picture with the text, [N]."""
        if not len(pictures):
            return torch.zeros(0)
        embedded = torch.cat([self.embed(part).float().cpu() for part in pictures.split(TOGETHER)])
        return functional.cosine_similarity(embedded, self.text.float().cpu()[None])


def make_ranker(text: str, clip: Any, clip_vision: Any, folder: str) -> TextRanker:
    """The ranker of whichever CLIP is at hand. Raises ValueError for none, for half of one, and for two."""
    if (clip is None) != (clip_vision is None):
        lacking = "clip_vision" if clip_vision is None else "clip"
        raise ValueError(f"mode text needs clip and clip_vision of one CLIP, and {lacking} is not wired. Wire both.")
    if clip is not None and folder != NO_FOLDER:
        raise ValueError(
            f"clip_folder: both a wired CLIP and the folder {folder!r} were given. Set it to '{NO_FOLDER}', or unplug."
        )
    if clip is None and folder == NO_FOLDER:
        raise ValueError(
            "mode text needs a CLIP to tell objects apart, and there is none. Wire clip (Load CLIP, e.g. "
            "clip_l.safetensors) and clip_vision (Load CLIP Vision, of the same CLIP), or choose a clip_folder, "
            "or use points, boxes or everything."
        )
    return _host_ranker(text, clip, clip_vision) if clip is not None else _folder_ranker(text, folder)


def clip_folders() -> dict[str, Path]:
    """Folders that hold a CLIP as transformers saves it, by name; links that lead out of the model folders do not."""
    found: dict[str, Path] = {}
    for home in [Path(path) for kind in FOLDERS for path in folder_paths.get_folder_paths(kind)]:
        for config in sorted(home.glob("*/config.json")):
            folder = config.parent
            if is_inside(folder, home) and _is_clip(config):
                found.setdefault(folder.name, folder)
    return found


def _is_clip(config: Path) -> bool:
    try:
        return json.loads(config.read_text(encoding="utf-8"))["model_type"] == "clip"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _host_ranker(text: str, clip: Any, clip_vision: Any) -> TextRanker:
    kind, dimension = clip_vision.model_type, clip_vision.config.get("projection_dim")
    if kind != "clip_vision_model" or dimension is None:
        raise ValueError(f"clip_vision must be a CLIP with an image projection, got a {kind}. Load a CLIP ViT instead.")
    _require_projection(clip, dimension)
    pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)[1]
    if pooled is None or pooled.shape[-1] != dimension:
        raise ValueError(_mismatch(dimension, "nothing" if pooled is None else f"{pooled.shape[-1]} numbers"))

    def embed(pictures: Tensor) -> Tensor:
        return clip_vision.encode_image(pictures)["image_embeds"]

    return TextRanker(pooled[0], embed, clip_vision.image_size)


def _require_projection(clip: Any, dimension: int) -> None:
    """Raises ValueError unless the host's text encoder gives embeddings in a CLIP's joint space of that dimension."""
    encoders = [
        m for m in clip.cond_stage_model.modules() if hasattr(getattr(m, "transformer", None), "text_projection")
    ]
    weights = [m.transformer.text_projection.weight for m in encoders if m.return_projected_pooled]
    fitting = [weight for weight in weights if weight is not None and weight.shape[0] == dimension]
    if not fitting:
        sizes = ", ".join(str(list(weight.shape)) for weight in weights if weight is not None)
        raise ValueError(_mismatch(dimension, f"projections {sizes}" if sizes else "no projection at all"))
    projection = fitting[0].detach().float()
    trained = (
        projection.isfinite().all() and projection.any() and not projection.equal(torch.eye(dimension).to(projection))
    )
    if not trained:
        raise ValueError(
            "clip has no trained text projection, as in SD1.5 checkpoints, so it cannot be compared with pictures. "
            "Load a whole CLIP text encoder (Load CLIP, type stable_diffusion, e.g. clip_l.safetensors)."
        )


def _mismatch(dimension: int, got: str) -> str:
    return (
        f"clip and clip_vision must be two halves of one CLIP: clip_vision gives {dimension} numbers, clip has {got}. "
        "Pair clip_l with CLIP ViT-L/14, SD2's text encoder with ViT-H, clip_g with ViT-bigG (type stable_diffusion)."
    )


def _folder_ranker(text: str, name: str) -> TextRanker:
    folders = clip_folders()
    if name not in folders:
        raise ValueError(
            f"clip_folder: there is no CLIP {name!r:.100} in models/clip; got {', '.join(folders) or 'none'}."
        )
    import transformers

    device = comfy.model_management.text_encoder_device()
    try:
        options = {"local_files_only": True}
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folders[name], **options)
        model = transformers.CLIPModel.from_pretrained(folders[name], use_safetensors=True, **options).to(device).eval()
    except Exception as error:
        raise ValueError(
            f"clip_folder: {name!r} cannot be loaded as a CLIP of transformers ({error}). It needs config.json, "
            "model.safetensors and the tokenizer's files."
        ) from error
    tokens = tokenizer(text, truncation=True, return_tensors="pt").to(device)
    embedded = model.text_projection(model.text_model(**tokens).pooler_output)[0]

    def embed(pictures: Tensor) -> Tensor:
        pixels = normalized(pictures).to(device)
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

    return TextRanker(embedded, embed, model.config.vision_config.image_size)


def normalized(pictures: Tensor) -> Tensor:
    """[N, S, S, 3] in 0..1 -> CLIP's pixel values [N, 3, S, S]."""
    mean = pictures.new_tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = pictures.new_tensor([0.26862954, 0.26130258, 0.27577711])
    return ((pictures - mean) / deviation).movedim(-1, 1)
