"""Paste Content Back: outside of the regions, the content's own pixels instead of the autoencoder's."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.masks.mask import fit_mask, frame_masks, require_frames
from ...diffstyler_core.styles.style import Styles, regions_of, require_masks_fit
from .. import sockets
from ..host import text as host_text
from ..host.checks.numbers import require_number
from ..host.checks.pictures import place_of, rgb_pictures

FARTHEST = 512


def kept_part(
    styles: Styles | None, mask: Tensor | None, results: int, size: tuple[int, int], grow: int, feather: int
) -> Tensor:
    """[h, w] or [results, h, w]: how much of the result is kept at each pixel.

    Raises ValueError unless exactly one source is given, with one mask for all results or one for each.
    """
    if (styles is None) == (mask is None):
        given = "neither was" if mask is None else "both were"
        raise ValueError(f"styles and mask: exactly one of them says what is kept, {given} given. Wire just one.")
    if styles is not None and not styles:
        raise ValueError("styles: at least one Regional Style is expected, got an empty chain. Wire one.")
    if mask is not None:
        kept = frame_masks(mask, "mask")
        require_frames(kept, results, "mask")
        return fit_mask(kept, size, size, grow, feather)
    require_masks_fit(styles or (), results)
    return regions_of(styles or (), size, size, grow, feather).inside


def require_each(content: Tensor, result: Tensor) -> None:
    """Raises ValueError unless there is one content for all results, or one for each."""
    if len(content) not in (1, len(result)):
        raise ValueError(
            f"content: one picture for all results or one for each of the {len(result)} is expected, got a batch of "
            f"{len(content)}. Wire the frames that were stylised, or pick one with 'Image From Batch'."
        )


def paste(result: Tensor, content: Tensor, keep: Tensor) -> Tensor:
    """Pictures [B, h, w, 3]: the result where ``keep`` ([h, w] or [B, h, w]) is 1, the content itself where it is 0."""
    m = keep[..., None]
    return torch.where(m > 0, m * result + (1.0 - m) * content, content)


def describe(keep: Tensor, content: Tensor, grow: int, feather: int) -> str:
    """How much of each picture there is, where they fade into each other, and when one of them is all."""
    frames = len(keep) if keep.ndim == 3 else 1
    pixels = content.shape[1] * content.shape[2] * frames
    original = 1.0 - (keep > 0).sum().item() / pixels
    kept = keep.double().sum().item() / pixels
    text = f"result {100 * kept:.1f} %, content's own pixels on {100 * original:.1f} % of the picture"
    if not keep.any():
        return text + "\nnothing of the result is kept: every mask is empty"
    if bool((keep == 1.0).all()):
        return text + "\nall of the result is kept: the styles cover everything"
    return f"{text}\n{edge_words(grow, feather)}"


def edge_words(grow: int, feather: int) -> str:
    """What grow and feather do at a mask's edge, in pixels of the content."""
    at = "at the masks' edge" if not grow else f"{abs(grow)} pixels {'outside' if grow > 0 else 'inside'} of the masks"
    if not feather:
        return f"edge: hard, {at}"
    return f"edge: {at}, result and content fade into each other over {feather} pixels to each side of it"


class PasteContent(io.ComfyNode):
    """The result inside of the regions, the untouched content outside."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_PasteContent",
            display_name="Paste Content Back",
            category=sockets.CATEGORY,
            description="Puts the content's original pixels back outside of the styles' regions. The decoded picture "
            "differs from them there, as the VAE does not give back exactly what it was given.",
            search_aliases=[
                "composite",
                "paste",
                "stitch",
                "uncrop",
                "restore background",
                "original pixels",
                "blend by mask",
                "diffstyler",
            ],
            inputs=[
                io.Image.Input("result", tooltip="The decoded result, one or several; the frames of a clip."),
                io.Image.Input(
                    "content", tooltip="The content picture, as it was wired to VAE Encode: one for all, or one each."
                ),
                io.Int.Input(
                    "grow",
                    default=8,
                    min=-FARTHEST,
                    max=FARTHEST,
                    tooltip="The result is kept this many of the content's pixels beyond the masks: a latent pixel "
                    "is 8 wide, so the style reaches that far. Negative: less. Add the sampler's mask_grow.",
                ),
                io.Int.Input(
                    "feather",
                    default=8,
                    min=0,
                    max=FARTHEST,
                    tooltip="The content's pixels to each side of the grown edge over which result and content fade "
                    "into each other; 0 cuts hard. The VAE gives the content back a little changed, so a hard cut is "
                    "seen. The default, like grow, hides it and leaves the result all that the masks cover.",
                ),
                sockets.Styles.Input(
                    "styles", optional=True, tooltip="From Regional Style: their masks say what is kept. Or wire mask."
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="What is kept of the result, any resolution. Instead of styles."
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="The content's size; its own pixels outside of the regions.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls,
        result: Tensor,
        content: Tensor,
        grow: int,
        feather: int,
        styles: Styles | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        require_number(grow, "grow", -FARTHEST, FARTHEST)
        require_number(feather, "feather", 0, FARTHEST)
        content = rgb_pictures(content, "content")
        result = rgb_pictures(result, "result").to(content)
        require_each(content, result)
        rows, columns = place_of(result, content)
        size = (result.shape[1], result.shape[2])
        keep = kept_part(styles, mask, len(result), size, grow, feather).to(content)
        image = content.repeat(len(result) // len(content), 1, 1, 1)
        image[:, rows, columns] = paste(result, content[:, rows, columns], keep)
        return host_text.output(image, text=describe(keep, content, grow, feather))
