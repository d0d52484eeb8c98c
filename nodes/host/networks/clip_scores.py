"""What CLIP says of pictures: similarity to a style, and the direction from a content to its result."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from ....diffstyler_core.masks.crops import candidate_crops
from ....diffstyler_core.metrics.available import NotAvailable
from .clip import NO_FOLDER, make_ranker


class ClipScores:
    """The host's CLIP_VISION, and where clip and both prompts are given, the direction between the prompts.

    Raises NotAvailable where clip_vision is not wired, ValueError for what is no CLIP and for halves of two CLIPs.
    """

    def __init__(self, clip_vision: Any, clip: Any = None, source: str = "", target: str = "") -> None:
        if clip_vision is None:
            raise NotAvailable("clip_vision is not wired (Load CLIP Vision)")
        self._vision = clip_vision
        kind = clip_vision.model_type
        if kind != "clip_vision_model" or clip_vision.config.get("projection_dim") is None:
            raise ValueError(f"clip_vision must be a CLIP with an image projection, got a {kind}. Load a CLIP ViT.")
        self._direction = self._text_direction(clip, source.strip(), target.strip())

    def embed(self, picture: Tensor, mask: Tensor | None = None) -> Tensor:
        """[D], of length 1. picture [H, W, 3] in 0..1, scaled and its middle cropped as CLIP does.

        mask [H, W]: only where it is at least 0.5, cropped to that and put on white.
        """
        seen = picture[None].cpu().float()
        if mask is not None:
            inside = mask.cpu() >= 0.5
            if not inside.any():
                raise NotAvailable("the mask is nowhere 0.5 or more")
            seen = candidate_crops(seen[0], inside[None], self._vision.image_size)
        return functional.normalize(self._vision.encode_image(seen)["image_embeds"][0].double().cpu(), dim=0)

    def direction_similarity(self, content: Tensor, result: Tensor) -> float:
        """Directional CLIP similarity (StyleGAN-NADA, Gal et al. 2022, eq. 2), -1..1. Higher: more as the words say.

        cos(E(result) - E(content), E(target) - E(source)), each E of length 1; content and result are ``embed``'s.
        """
        if isinstance(self._direction, NotAvailable):
            raise NotAvailable(str(self._direction))
        moved = result - content
        if not moved.any():
            raise NotAvailable("CLIP sees no difference between content and result")
        return functional.cosine_similarity(moved, self._direction, dim=0).item()

    def _text_direction(self, clip: Any, source: str, target: str) -> Tensor | NotAvailable:
        if clip is None:
            return NotAvailable("clip is not wired (Load CLIP)")
        if not target or source == target:
            return NotAvailable("source_prompt and target_prompt must be two different prompts")
        texts = [make_ranker(words, clip, self._vision, NO_FOLDER).text for words in (source, target)]
        first, second = (functional.normalize(text.double().cpu(), dim=0) for text in texts)
        return second - first
