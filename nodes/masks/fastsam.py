"""Mask by FastSAM: a mask from words, points, boxes, or of everything (method.md section 7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.masks.prompts import parse_boxes, parse_points
from ...diffstyler_core.masks.segments import COMBINES, combine, everything
from .. import sockets
from ..drawing.contours import draw_contours
from ..host import text as host_text
from ..host.checks.pictures import unit_pictures
from ..host.checks.refusal import refusal
from ..host.checks.text import require_choice
from ..host.identity import file_stamp, model_stamp
from ..host.networks.clip import NO_FOLDER, clip_folders
from ..host.not_installed import first_installed
from ..host.progress import stop_if_cancelled
from ..host.segment.choosers import Chooser, box_choosers, point_choosers, text_chooser
from ..host.segment.fastsam import SegmentFinder
from ..host.segment.weights import FOLDER, weights_names, weights_path

MODES = ("text", "points", "boxes", "everything")
WHEN_NONE = ("empty mask", "error")
BOXES = ("BoundingBox", "BoundingBoxes", "BBOX")
"""The host's types of boxes; ComfyUI before 0.30 has no BoundingBoxes."""


class FastSAMMask(io.ComfyNode):
    """Masks of the objects that a prompt means."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_FastSAMMask",
            display_name="Mask by FastSAM",
            category=sockets.CATEGORY,
            description="Finds the objects of a picture with FastSAM and makes a mask of those that a text, points or "
            "boxes mean. Any other MASK can be wired in its place.",
            search_aliases=[
                "segment anything",
                "segment",
                "segmentation",
                "sam",
                "object mask",
                "subject mask",
                "auto mask",
                "text to mask",
                "mask from text",
                "background mask",
                "clipseg",
                "ultralytics",
                "yolo",
                "diffstyler",
            ],
            inputs=[*main_inputs(), *setting_inputs(), *wired_inputs()],
            outputs=[
                io.Mask.Output("mask", tooltip="All chosen objects together, one mask per picture, 0 or 1."),
                io.Mask.Output(
                    "masks",
                    is_output_list=True,
                    tooltip="A list: one mask per picture (merge) or per object (separate), in the preview's order.",
                ),
                io.Image.Output("preview", tooltip="The picture with the outlines and numbers of masks."),
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(
        cls,
        fastsam_name: str | None = None,
        mode: str | None = None,
        points: str | None = None,
        boxes: str | None = None,
    ) -> bool | str:
        """What is typed in is checked before anything runs; None comes over a wire."""
        checks: list[Callable[[], object]] = []
        if fastsam_name is not None:
            checks.append(partial(weights_path, str(fastsam_name)))
        if mode is not None:
            checks.append(partial(require_choice, mode, "mode", MODES))
        if mode == "points" and points is not None:
            checks.append(partial(parse_points, points))
        if mode == "boxes" and boxes is not None:
            checks.append(partial(parse_boxes, boxes))
        return refusal(*checks)

    @classmethod
    def fingerprint_inputs(cls, fastsam_name: str | None = None, clip_folder: str | None = None, **_: Any) -> str:
        """Changed files are other weights, though their names are the same."""
        folder = clip_folders().get(clip_folder or NO_FOLDER)
        clip = "" if folder is None else file_stamp(sorted(folder.iterdir()))
        return " ".join(filter(None, [model_stamp(FOLDER, fastsam_name), clip]))

    @classmethod
    def execute(
        cls,
        image: Tensor,
        fastsam_name: str,
        mode: str,
        text: str,
        points: str,
        boxes: str,
        confidence: float,
        iou: float,
        image_size: int,
        best_n: int,
        combine: str,
        when_none: str,
        clip_folder: str,
        clip: Any = None,
        clip_vision: Any = None,
        point_input: Any = None,
        box_input: Any = None,
    ) -> io.NodeOutput:
        pictures = unit_pictures(image, "image")
        for name, value, known in (
            ("mode", mode, MODES), ("combine", combine, COMBINES), ("when_none", when_none, WHEN_NONE)
        ):  # fmt: skip
            require_choice(value, name, known)
        if best_n < 0:
            raise ValueError(f"best_n must be 0 (automatic) or more, got {best_n}.")
        weights = weights_path(fastsam_name)
        if mode == "points":
            choosers = point_choosers(pictures, points, point_input, best_n)
        elif mode == "boxes":
            choosers = box_choosers(pictures, boxes, box_input, best_n)
        elif mode == "text":
            choosers = [text_chooser(text, clip, clip_vision, clip_folder, best_n)] * len(pictures)
        else:
            choosers = [lambda _, segments: everything(segments, best_n)] * len(pictures)
        finder = SegmentFinder(weights, confidence, iou, image_size)
        return as_output(*select(pictures, finder, choosers, combine, when_none))


def select(
    pictures: Tensor, finder: SegmentFinder, choosers: list[Chooser], how: str, when_none: str
) -> tuple[Tensor, list[Tensor], str]:
    """(pictures, each one's chosen masks [K, H, W], what to say). Raises ValueError for none found, if asked to."""
    chosen, lines = [], []
    for number, (picture, choose) in enumerate(zip(pictures, choosers, strict=True), 1):
        stop_if_cancelled()
        segments = finder.find(picture)
        selection = choose(picture, segments)
        line = f"picture {number}: " if len(pictures) > 1 else ""
        line += f"{len(selection.indices)} of {len(segments)} objects chosen"
        line += f"; nothing for {', '.join(selection.unmet)}" if selection.unmet else ""
        if not selection.indices and when_none == "error":
            raise ValueError(
                f"Mask by FastSAM: no object found ({line}). Lower confidence, raise image_size, change the prompt, "
                "or set when_none to 'empty mask'."
            )
        lines.append(line + ("" if selection.indices else "\nno object found: the mask is empty"))
        chosen.append(combine(segments, selection, how))
    return pictures, chosen, "\n".join(lines)


def as_output(pictures: Tensor, chosen: list[Tensor], text: str) -> io.NodeOutput:
    """The node's three outputs. The list is never empty: the host runs nothing on an empty one."""
    union = torch.stack([masks.any(0).float() for masks in chosen])
    separate = [mask[None] for masks in chosen for mask in masks] or [torch.zeros_like(union[:1])]
    preview = torch.stack([draw_contours(*drawn) for drawn in zip(pictures, chosen, strict=True)])
    return host_text.output(union, separate, preview, text=text)


def main_inputs() -> list[io.Input]:
    """The picture, the weights and the prompt."""
    return [
        io.Image.Input("image", tooltip="One picture or a batch; the prompt is used on each."),
        io.Combo.Input(
            "fastsam_name",
            options=weights_names(),
            default=first_installed(weights_names()),
            tooltip="FastSAM's weights, to be put into models/fastsam: s is small and fast, x is more exact. Choosing "
            "one that is not installed says where to get it.",
        ),
        io.Combo.Input("mode", options=list(MODES), default="text", tooltip="Which prompt chooses the objects."),
        io.String.Input(
            "text", default="", tooltip="Mode text only: words for the object, e.g. the face. Needs a CLIP."
        ),
        io.String.Input(
            "points",
            default="",
            tooltip="Mode points only: x, y in the picture's pixels for a point inside the object, x, y, - for one "
            "outside it, separated by ';'. E.g. 120, 80; 200, 150, -",
        ),
        io.String.Input(
            "boxes",
            default="",
            tooltip="Mode boxes only: x1, y1, x2, y2 in the picture's pixels, separated by ';'. E.g. 10, 20, 200, 180",
        ),
    ]


def setting_inputs() -> list[io.Input]:
    """How objects are found, and what is made of them."""
    return [
        io.Float.Input(
            "confidence",
            default=0.4,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Less finds more, and less certain, objects.",
        ),
        io.Float.Input(
            "iou",
            default=0.9,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Of objects whose boxes overlap by more than this, only the most confident is kept.",
            advanced=True,
        ),
        io.Int.Input(
            "image_size",
            default=1024,
            min=32,
            max=4096,
            step=32,
            tooltip="Longer side at which FastSAM sees the picture. Larger finds smaller objects and takes longer.",
            advanced=True,
        ),
        io.Int.Input(
            "best_n",
            default=0,
            min=0,
            max=300,
            tooltip="How many objects to take: of the text, of each inside point, of each box, or of everything. "
            "0: one each, and all in mode everything.",
        ),
        io.Combo.Input(
            "combine",
            options=list(COMBINES),
            default="merge",
            tooltip="For masks and preview: all objects of a picture as one mask, or one mask for each.",
        ),
        io.Combo.Input(
            "when_none", options=list(WHEN_NONE), default="empty mask", tooltip="What happens when nothing is found."
        ),
        io.Combo.Input(
            "clip_folder",
            options=[NO_FOLDER, *clip_folders()],
            default=NO_FOLDER,
            tooltip="Mode text only, instead of clip and clip_vision: a CLIP as transformers saves it, in a folder "
            "of models/clip.",
            advanced=True,
        ),
    ]


def wired_inputs() -> list[io.Input]:
    """What may come over wires."""
    return [
        io.Clip.Input("clip", optional=True, tooltip="Mode text only: the text half of a CLIP, e.g. clip_l."),
        io.ClipVision.Input(
            "clip_vision", optional=True, tooltip="Mode text only: the picture half of the same CLIP, e.g. ViT-L/14."
        ),
        io.MultiType.Input(
            "point_input", [io.Point], optional=True, tooltip="Mode points only: added to those of the text field."
        ),
        io.MultiType.Input(
            "box_input",
            [getattr(io, name) for name in BOXES if hasattr(io, name)],
            optional=True,
            tooltip="Mode boxes only: added to those of the text field. BBOX is x1, y1, x2, y2.",
        ),
    ]
