"""Compare Result: a result against its content and its styles, in figures and in one picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.evaluation.appearance import Networks, style_appearance
from ...diffstyler_core.evaluation.measures import measure
from ...diffstyler_core.evaluation.metric import Figure
from ...diffstyler_core.evaluation.pairs import fitted, masks_for, matched, one_each, size_words
from ...diffstyler_core.evaluation.regions import regions_of
from ...diffstyler_core.evaluation.report import HEADER, describe, figures_table
from ...diffstyler_core.metrics.available import value_or_reason
from .. import sockets
from ..drawing.sheet import Sheet, draw_sheets, tiles_of
from ..host import text as host_text
from ..host.checks.pictures import unit_pictures
from ..host.checks.refusal import refusal
from ..host.identity import model_stamp
from ..host.networks.clip_scores import ClipScores
from ..host.networks.files import LPIPS, default_weights, require_listed, weight_file, weight_names
from ..host.networks.perceptual import Lpips
from ..host.progress import ProgressBar, stop_if_cancelled


class CompareResult(io.ComfyNode):
    """Figures and a contact sheet of results against their content and styles."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_CompareResult",
            display_name="Compare Result",
            category=sockets.EVALUATE,
            description="Measures how much of a content a result keeps (PSNR, SSIM, LPIPS, edges) and how near it is "
            "to a style (colours, textures, CLIP): whole, inside and outside of a mask, and by halves.",
            search_aliases=[
                "compare images",
                "metrics",
                "psnr",
                "ssim",
                "lpips",
                "clip score",
                "gram",
                "image similarity",
                "style similarity",
                "evaluate",
                "diffstyler",
            ],
            inputs=[
                io.Image.Input("result", tooltip="The picture to judge, or several: each gets its own figures."),
                io.Image.Input("content", tooltip="What it was made of: one for all results, or one for each."),
                io.Boolean.Input("halves", default=False, tooltip="Also measure the left and the right half apart."),
                io.Combo.Input(
                    "lpips_weights",
                    options=weight_names(LPIPS),
                    default=default_weights(LPIPS),
                    tooltip="AlexNet, VGG16 or SqueezeNet of torchvision, to be put into models/lpips (the help page "
                    "says where they are from), for LPIPS and the Gram distance of its network. Papers use AlexNet. "
                    "Nothing is downloaded.",
                ),
                io.String.Input(
                    "source_prompt",
                    default="a photo",
                    tooltip="What the content is, in words; for CLIP direction, with clip and clip_vision.",
                ),
                io.String.Input(
                    "target_prompt",
                    default="",
                    tooltip="What the result should be, in words, e.g. a mosaic. Empty: no CLIP direction.",
                ),
                io.Image.Input("style", optional=True, tooltip="The style picture, or several."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Figures inside and outside of it, too. One for all, or one each."
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="Load CLIP Vision, for CLIP similarity."),
                io.Clip.Input("clip", optional=True, tooltip="Text encoder of the same CLIP, for CLIP direction."),
            ],
            outputs=[
                io.Image.Output("sheet", tooltip="The pictures side by side, with a table of the figures."),
                io.String.Output("text", tooltip="The figures in words, and what is not available and why."),
                io.String.Output("csv", tooltip=f"A table: {', '.join(HEADER)}."),
            ],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def validate_inputs(cls, lpips_weights: str | None = None) -> bool | str:
        """A name with or without 'not installed' is in the list; None comes over a wire."""
        return refusal(*([] if lpips_weights is None else [lambda: require_listed(LPIPS, lpips_weights)]))

    @classmethod
    def fingerprint_inputs(cls, lpips_weights: str | None = None, **_: Any) -> str:
        """A file that was added or changed gives other figures, though its name is the same."""
        return model_stamp(LPIPS, lpips_weights)

    @classmethod
    def execute(
        cls,
        result: Tensor,
        content: Tensor,
        halves: bool,
        lpips_weights: str,
        source_prompt: str,
        target_prompt: str,
        style: Tensor | None = None,
        mask: Tensor | None = None,
        clip_vision: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        results, styles = unit_pictures(result, "result"), [] if style is None else list(unit_pictures(style, "style"))
        contents = one_each(unit_pictures(content, "content"), len(results), "content")
        masks = masks_for(mask, len(results))
        networks = Networks(
            value_or_reason(lpips_of, lpips_weights),
            value_or_reason(ClipScores, clip_vision, clip, source_prompt, target_prompt),
        )
        progress, sheets = ProgressBar(len(results)), []
        for number, pictures in enumerate(zip(results, contents, masks, strict=True), 1):
            title = f"result {number} of {len(results)}" if len(results) > 1 else "result"
            sheets.append(compare_one(title, *pictures, styles, networks, halves))
            progress.update(1)
        text = "\n\n".join(describe(sheet.title, sheet.figures) for sheet in sheets)
        drawn, table = draw_sheets(sheets), figures_table([sheet.figures for sheet in sheets])
        return host_text.output(drawn, text, table, text=text, picture=drawn)


def lpips_of(weights: str) -> Lpips:
    """LPIPS over the backbone of that file. Raises NotAvailable where there is none."""
    return Lpips(weight_file(LPIPS, weights))


def compare_one(
    title: str,
    result: Tensor,
    content: Tensor,
    mask: Tensor | None,
    styles: list[Tensor],
    networks: Networks,
    halves: bool,
) -> Sheet:
    """One result's pictures [H, W, 3] and figures."""
    pair = matched(result, content)
    own_mask = fitted(mask, pair.result)
    shorter = min(pair.result.shape[:2])
    seen = [style_appearance(style, shorter, networks) for style in styles]
    figures: list[Figure] = []
    for region in regions_of(pair.result.shape[1], own_mask, halves):
        stop_if_cancelled()
        figures += measure(pair.result, pair.content, seen, networks, region)
    notes = [size_words(pair.result.shape[:2]), pair.note, "" if styles else "no style is wired"]
    title = ", ".join([title, *filter(None, notes)])
    return Sheet(title, tiles_of(pair.result, pair.content, own_mask, styles), figures)
