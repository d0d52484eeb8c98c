"""Compare Result: a result against its content and its styles, in figures and in one picture."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.evaluation.analysis import csv_text
from ..drawing.sheet import Sheet, draw_sheets, number, tiles_of, unavailable
from ..host import text as host_text
from ..host.evaluation.measures import STYLE, Look, Tools, attempt, look_at_style, measure, regions_of
from ..host.evaluation.pairs import fitted, masks_for, matched, one_each, words
from ..host.inputs import refusal
from ..host.networks.clip_scores import ClipScores
from ..host.networks.files import (
    LPIPS,
    default_weights,
    require_listed,
    weight_file,
    weight_names,
    weight_stamp,
)
from ..host.networks.perceptual import Lpips
from ..host.pictures import rgb_pictures
from ..inputs.features import ANALYSIS

HEADER = ("result", "metric", "better", "against", "region", "value", "not_available")


def plain(images: Tensor, name: str) -> Tensor:
    """Pictures [B, H, W, 3], checked, on the CPU, in 0..1."""
    return rgb_pictures(images, name).to("cpu").float().clamp(0.0, 1.0)


def table(sheets: list[Sheet]) -> str:
    """CSV: a row for each figure; value is empty where it is not available, and the last column says why."""
    rows = [
        (i, f.metric.key, f.metric.better, f.against, f.region, "" if f.value is None else float(f.value), f.why)
        for i, sheet in enumerate(sheets, 1)
        for f in sheet.figures
    ]
    return csv_text(HEADER, rows)


def describe(sheet: Sheet) -> str:
    """A line for each metric with its regions, then what is not available and why."""
    lines: dict[str, list[str]] = {}
    for f in sheet.figures:
        if f.value is not None:
            name = f.metric.words + (f", {f.against}" if STYLE in f.against else "")
            lines.setdefault(name, []).append(f"{f.region} {number(f.value)}")
    text = [sheet.title, *(f"{name}: {', '.join(cells)}" for name, cells in lines.items())]
    return "\n".join([*text, *unavailable(sheet.figures)])


class CompareImages(io.ComfyNode):
    """Figures and a contact sheet of results against their content and styles."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_CompareImages",
            display_name="Compare Result",
            category=ANALYSIS,
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
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def validate_inputs(cls, lpips_weights: str | None = None) -> bool | str:
        """A name with or without 'not installed' is in the list; None comes over a wire."""
        return refusal(*([] if lpips_weights is None else [lambda: require_listed(LPIPS, lpips_weights)]))

    @classmethod
    def fingerprint_inputs(cls, lpips_weights: str | None = None, **_: Any) -> str:
        """A file that was added or changed gives other figures, though its name is the same."""
        return weight_stamp(LPIPS, lpips_weights)

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
        results, styles = plain(result, "result"), [] if style is None else list(plain(style, "style"))
        contents = one_each(plain(content, "content"), len(results), "content")
        masks = masks_for(mask, len(results))
        tools = Tools(
            attempt(lambda: Lpips(weight_file(LPIPS, lpips_weights))),
            attempt(lambda: ClipScores(clip_vision, clip, source_prompt, target_prompt)),
        )
        progress, sheets = comfy.utils.ProgressBar(len(results)), []
        for number_, (one, its_content, its_mask) in enumerate(zip(results, contents, masks, strict=True), 1):
            title = f"result {number_} of {len(results)}" if len(results) > 1 else "result"
            sheets.append(compare_one(title, one, its_content, its_mask, styles, tools, halves))
            progress.update(1)
        text = "\n\n".join(describe(sheet) for sheet in sheets)
        sheet = draw_sheets(sheets)
        return host_text.output(sheet, text, table(sheets), text=text, node=cls, picture=sheet)


def compare_one(
    title: str, result: Tensor, content: Tensor, mask: Tensor | None, styles: list[Tensor], tools: Tools, halves: bool
) -> Sheet:
    """One result's pictures [H, W, 3] and figures."""
    pair = matched(result, content)
    own_mask = fitted(mask, pair.result)
    regions = regions_of(pair.result.shape[1], own_mask, halves)
    shorter = min(pair.result.shape[:2])
    looks: list[Look] = [look_at_style(style, shorter, tools) for style in styles]
    figures = []
    for region in regions:
        comfy.model_management.throw_exception_if_processing_interrupted()
        figures += measure(pair.result, pair.content, looks, tools, [region])
    notes = [words(pair.result.shape[:2]), pair.note, "" if styles else "no style is wired"]
    title = ", ".join([title, *filter(None, notes)])
    return Sheet(title, tiles_of(pair.result, pair.content, own_mask, styles), figures)
