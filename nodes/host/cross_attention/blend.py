"""Several prompts in one picture, each where its mask is: out = sum_i M_i Attn(Q, K_i, V_i) (dual-style paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.masks.mask import resize_by_area
from ....diffstyler_core.styles.style import Style, Styles, regions_of
from ..checks.conditioning import require_conditioning
from .parts import Place, Reading, Size

NAME = "Blend Conditionings by Mask"
UNREAD = {"control": "a ControlNet", "gligen": "GLIGEN boxes", "hooks": "hooks (a LoRA or weights of its own)"}
"""What a prompt may carry beside its tokens, which no cross-attention reads."""


class Blend:
    """A reader: every style's prompt where the style is, the sampler's own where none is.

    scale: pixels of the picture a side of a latent pixel. grow, feather: of every mask, in pixels of the picture.
    Shares are made at the latent's size as noise merging makes them, and averaged over the area of each query.
    """

    name = NAME

    def __init__(self, styles: Styles, scale: int, grow: int = 0, feather: int = 0) -> None:
        self.prompts: tuple[Tensor, ...] = tuple(style.positive[0][0] for style in styles)  # type: ignore[index]
        self._styles, self._scale = styles, scale
        self._grow, self._feather = grow, feather
        self._shares: dict[Size, Tensor] = {}
        self._latent: Size | None = None

    def shares(self, latent: Size, grid: Size) -> Tensor:
        """[1 + N, *grid]: what the sampler's own prompt and each style get of every query; they sum to one."""
        if self._latent != latent:
            picture = latent[0] * self._scale, latent[1] * self._scale
            regions = regions_of(self._styles, latent, picture, self._grow, self._feather)
            self._shares, self._latent = {latent: torch.cat([regions.rest[None], regions.styles])}, latent
        if grid not in self._shares:
            self._shares[grid] = torch.stack([resize_by_area(share, *grid) for share in self._shares[latent]])
        return self._shares[grid]

    def readings(self, place: Place) -> Sequence[Reading]:
        """The prompts with any share at a place. Raises ValueError for a part of the picture alone."""
        if place.picture not in (None, place.latent):
            raise ValueError(
                f"{NAME}: the masks lie over the whole picture, and {_size(place.latent)} latent pixels of "
                f"{_size(place.picture)} are evaluated. Use Conditioning (Set Mask) instead of areas, and no tiles."
            )
        shares = self.shares(place.latent, place.grid).flatten(1)
        return [Reading(i, 1.0 if share.min() == 1.0 else share) for i, share in enumerate(shares) if share.any()]


def _size(size: Size | None) -> str:
    return "?" if size is None else f"{size[1]} x {size[0]}"


def require_prompts(styles: Styles, model: ModelPatcher) -> None:
    """Raises ValueError that names the style which carries more than a prompt and a mask, or one that does not fit."""
    if not styles:
        raise ValueError("styles: a chain of at least one Regional Style is expected, got none. Wire one.")
    for number, style in enumerate(styles, 1):
        label = style.label(number)
        _require_prompt_only(style, label)
        _require_one_mask(style, label)
        positive = require_conditioning(style.positive, model, f"positive of {label}", one=True, whose="a style's")
        require_tokens_only(positive[0][1], f"positive of {label}")


def _require_prompt_only(style: Style, label: str) -> None:
    found = [name for name in ("lora", "features", "injection", "reference") if getattr(style, name) is not None]
    if found:
        raise ValueError(
            f"styles: {label} carries {' and '.join(found)}, and cross-attention reads prompts only. "
            "Unplug it from Regional Style, or wire these styles into the Injected LoRA Sampler."
        )


def _require_one_mask(style: Style, label: str) -> None:
    if style.mask is not None and style.mask.ndim == 3:
        raise ValueError(
            f"mask of {label}: {NAME} takes one mask for all frames, got {len(style.mask)}. Pick one of them, or wire "
            "these styles into the Injected LoRA Sampler, which takes one for each frame."
        )


def require_tokens_only(options: dict[str, Any], name: str) -> None:
    """Raises ValueError for what a prompt carries beside its tokens and its pooled output: it would not act."""
    found = [what for key, what in UNREAD.items() if options.get(key) is not None]
    if found:
        raise ValueError(
            f"{name} carries {' and '.join(found)}, and cross-attention reads its tokens only. "
            "Wire the CLIP Text Encode here, and the other into the sampler's own positive."
        )


def describe(styles: Styles, grow: int, feather: int) -> list[str]:
    """How much of the picture each prompt covers, at the largest mask's size, as if that were the picture's."""
    sizes = [(s.mask.shape[0], s.mask.shape[1]) for s in styles if s.mask is not None]
    size = max(sizes, key=lambda size: size[0] * size[1], default=(1, 1))
    regions = regions_of(styles, size, size, grow, feather)
    lines = []
    for number, (style, share) in enumerate(zip(styles, regions.styles, strict=True), 1):
        why = " (no mask: the rest)" if style.mask is None else "" if share.any() else " (empty mask: no effect)"
        lines.append(f"{style.label(number)}: {100 * share.mean().item():.1f} % of the picture{why}")
    return [*lines, f"the sampler's own prompt: {100 * regions.rest.mean().item():.1f} %"]


def pooled_note(model: ModelPatcher) -> list[str]:
    """What a line says of the pooled output, on a model that takes one."""
    if model.model.model_config.unet_config.get("num_classes") is None:
        return []
    return ["note: the pooled output is the sampler's own prompt's; of the prompts here only the tokens act"]


def blended(model: ModelPatcher, styles: Styles, grow: int = 0, feather: int = 0) -> Blend:
    """The reader of these styles for this MODEL."""
    return Blend(styles, model.get_model_object("latent_format").spacial_downscale_ratio, grow, feather)
