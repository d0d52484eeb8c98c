"""Preview Styles: which style goes where, before anything is sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.masks.outlines import inmost_point, inner_line, outer_line
from ...diffstyler_core.styles.coverage import Coverage, coverage
from ...diffstyler_core.styles.regions import Regions, share
from ...diffstyler_core.styles.style import Styles, frame_count_of, masks_of, require_masks_fit
from .. import sockets
from ..drawing.labels import Label, write_labels
from ..drawing.palette import colour_of
from ..host import text as host_text
from ..host.checks.numbers import require_number
from ..host.checks.pictures import one_picture, rgb_pictures
from ..host.sampling.injection import FARTHEST
from ..inputs.widgets import mask_edge_inputs

TINT = 0.55
"""How much of a region's colour covers the picture where the style has all of it."""


def pictures_of(content: Tensor, styles: Styles) -> Tensor:
    """The content [1, H, W, 3], or as many frames [B, H, W, 3] as the styles have masks for. Raises ValueError."""
    frames = frame_count_of(styles)
    if frames is None:
        return one_picture(content, "content").to("cpu", torch.float32)
    pictures = rgb_pictures(content, "content").to("cpu", torch.float32)
    require_masks_fit(styles, len(pictures))
    return pictures


def describe(covered: Coverage, masks: list[Tensor | None], styles: Styles) -> str:
    """A line for each style, and one each for what is left and what overlaps."""
    lines = []
    for number, (part, mask, style) in enumerate(zip(covered.styles, masks, styles, strict=True), 1):
        why = " (no mask: the rest)" if mask is None else "" if mask.any() else " (empty mask: no effect)"
        lines.append(f"{style.label(number)}: {100 * part:.1f} %{why}")
    lines.append(f"no style: {100 * covered.uncovered:.1f} %")
    lines.append(f"overlap, where masks sum to more than 1: {100 * covered.overlap:.1f} % of the pixels")
    return "\n".join(lines)


def tint(picture: Tensor, regions: Regions) -> Tensor:
    """The picture [H, W, 3] with each style's colour as strong as its share."""
    colours = torch.tensor([colour_of(i) for i in range(len(regions.styles))])
    colour = torch.einsum("nhw,nc->hwc", regions.styles, colours)  # [H, W, 3]
    return picture * (1.0 - TINT * regions.inside[..., None]) + TINT * colour


def outline(picture: Tensor, masks: list[Tensor]) -> Tensor:
    """The picture with bright lines of the styles' colours, dark outside, where their masks [H, W] cross 0.5."""
    width = max(1, round(min(picture.shape[:2]) / 200))
    insides = [mask >= 0.5 for mask in masks]
    for inside in insides:
        picture = torch.where(outer_line(inside, width)[..., None], 0.25 * picture, picture)
    for index, inside in enumerate(insides):
        bright = 0.5 + 0.5 * torch.tensor(colour_of(index))
        picture = torch.where(inner_line(inside, width)[..., None], bright, picture)
    return picture


def label_regions(picture: Tensor, regions: Regions, names: Sequence[str]) -> Tensor:
    """The picture [H, W, 3] with each style's number and name in its region, none upon another."""
    places = (inmost_point(region) for region in regions.styles)
    rows = enumerate(zip(places, names, strict=True), 1)
    labels = [Label(str(number), at, name) for number, (at, name) in rows if at is not None]
    return write_labels(picture, labels, max(12.0, min(picture.shape[:2]) / 10), apart=True)


def draw_regions(picture: Tensor, regions: Regions, masks: list[Tensor | None], names: Sequence[str]) -> Tensor:
    """IMAGE [1, H, W, 3] of a picture [H, W, 3]: tints by share, outlines of the masks themselves, numbers, names."""
    outlined = [part if mask is None else mask for mask, part in zip(masks, regions.styles, strict=True)]
    return label_regions(outline(tint(picture, regions), outlined), regions, names)[None]


class PreviewStyles(io.ComfyNode):
    """The regions of a chain of styles over the content picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_PreviewStyles",
            display_name="Preview Styles",
            category=sockets.CATEGORY,
            description="Shows which style goes where over the content picture, and how much of it each one covers. "
            "Samples nothing.",
            search_aliases=[
                "show regions",
                "region preview",
                "mask overlay",
                "mask preview",
                "preview mask",
                "diffstyler",
            ],
            inputs=[
                sockets.Styles.Input("styles", tooltip="From Regional Style or Styles from Masks."),
                io.Image.Input(
                    "content", tooltip="The content picture that is encoded; with a mask for each frame, the frames."
                ),
                *mask_edge_inputs("As on the sampler. "),
            ],
            outputs=[io.Image.Output("preview", tooltip="The picture with coloured regions, their numbers and names.")],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def execute(cls, styles: Styles, content: Tensor, mask_grow: int, mask_feather: int) -> io.NodeOutput:
        require_number(mask_grow, "mask_grow", -FARTHEST, FARTHEST)
        require_number(mask_feather, "mask_feather", 0, FARTHEST)
        if not styles:
            raise ValueError("styles: at least one Regional Style is expected, got an empty chain. Wire one.")
        pictures = pictures_of(content, styles)
        size = (pictures.shape[1], pictures.shape[2])
        masks, names = masks_of(styles, size, size, mask_grow, mask_feather), [style.name for style in styles]
        drawn = []
        for i, picture in enumerate(pictures):
            own = [mask if mask is None or mask.ndim == 2 else mask[i] for mask in masks]
            drawn.append(draw_regions(picture, share(own, *size), own, names))
        text = describe(coverage(share(masks, *size), masks), masks, styles)
        preview = torch.cat(drawn)
        return host_text.output(preview, text=text, picture=preview)
