"""Evaluate Set: the scores that papers report, of a folder of results with their contents and styles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ...diffstyler_core.evaluation.appearance import Networks
from ...diffstyler_core.evaluation.csv_table import csv_text
from ...diffstyler_core.evaluation.set_features import KeptFeatures
from ...diffstyler_core.evaluation.set_plan import GRAMMAR, make_plan, pictures_in
from ...diffstyler_core.evaluation.set_run import METRICS, Evaluation, Files, Settings
from ...diffstyler_core.evaluation.set_summary import describe, scores_of, scores_table
from ...diffstyler_core.evaluation.set_table import PairTable, write_text
from ...diffstyler_core.metrics.available import NotAvailable, value_or_reason
from .. import sockets
from ..host import text as host_text
from ..host.checks.refusal import refusal
from ..host.checks.text import require_text
from ..host.evaluation.picture_files import digest, read_picture
from ..host.identity import file_stamp, fingerprint, model_stamp
from ..host.networks.clip_scores import ClipScores
from ..host.networks.files import FID, LPIPS, NONE, default_weights, require_listed, weight_file, weight_names
from ..host.networks.inception import Inception
from ..host.networks.perceptual import Lpips
from ..host.paths import folder_name, host_folder, host_home, output_file, output_name
from ..host.progress import ProgressBar, stop_if_cancelled

FOLDERS = ("results_folder", "content_folder", "style_folder")
LONGEST_PATH = 1000


def settings_of(size: int, lpips_weights: str, clip_vision: Any) -> Settings:
    """What the figures need. Raises ValueError for a size below 0 and for what is no CLIP."""
    if size < 0:
        raise ValueError(f"size must be 0 (pictures as they are) or more, got {size}. The field uses 512.")
    weights = value_or_reason(weight_file, LPIPS, lpips_weights)
    lpips, clip = value_or_reason(Lpips, weights), value_or_reason(ClipScores, clip_vision)
    lpips_identity = NONE if isinstance(lpips, NotAvailable) else digest(weight_file(LPIPS, lpips_weights))
    clip_identity = NONE if isinstance(clip, NotAvailable) else fingerprint(clip_vision.patcher)
    return Settings(size, Networks(lpips, clip), f"lpips {lpips_identity} clip {clip_identity}")


def features_of(fid_weights: str, folder: Path, size: int) -> KeptFeatures:
    """What gives Inception features. Raises NotAvailable where there is no network."""
    weights = weight_file(FID, fid_weights)
    return KeptFeatures(folder, Inception(weights), digest(weights), size)


def listing(name: str | None, widget: str) -> str:
    """A folder's pictures with their times and sizes; empty for no folder, which executing refuses."""
    try:
        return file_stamp(pictures_in(host_folder(name or "", widget))[0])
    except (ValueError, OSError):  # executing says what is wrong
        return ""


class EvaluateSet(io.ComfyNode):
    """FID, ArtFID and the figures of every pair of a folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_EvaluateSet",
            display_name="Evaluate Set",
            category=sockets.EVALUATE,
            description="Measures a folder of results against their contents and styles, as papers do: FID, ArtFID, "
            f"LPIPS, CLIP, and a table of all pairs. Results are named {GRAMMAR}. It can be interrupted and goes on.",
            search_aliases=[
                "fid",
                "artfid",
                "lpips",
                "clip score",
                "benchmark",
                "metrics",
                "evaluate folder",
                "diffstyler",
            ],
            inputs=[
                io.String.Input(
                    "results_folder",
                    default="output/results",
                    tooltip=f"Folder below ComfyUI's output, input or temp, with pictures named {GRAMMAR}.",
                ),
                io.String.Input(
                    "content_folder", default="input/contents", tooltip="Folder of the contents, named as in results."
                ),
                io.String.Input(
                    "style_folder", default="input/styles", tooltip="Folder of the style pictures, named as in results."
                ),
                io.String.Input(
                    "filename_prefix",
                    default="diffstyler/evaluation",
                    tooltip="The tables' name below ComfyUI's output. Of the same name, a table is continued.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    tooltip="Pixels that every picture's shorter side is scaled to; 0: none is scaled. The field: 512.",
                ),
                io.Combo.Input(
                    "lpips_weights",
                    options=weight_names(LPIPS),
                    default=default_weights(LPIPS),
                    tooltip="AlexNet, VGG16 or SqueezeNet of torchvision, to be put into models/lpips; the help page "
                    "says where they are from. The field uses AlexNet. Nothing is downloaded.",
                ),
                io.Combo.Input(
                    "fid_weights",
                    options=weight_names(FID),
                    default=default_weights(FID),
                    tooltip="Inception, to be put into models/fid: ArtFID's own, as style transfer papers use, or "
                    "FID's standard one; the help page says where they are from. Nothing is downloaded.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="Load CLIP Vision, for CLIP similarity."),
            ],
            outputs=[
                io.String.Output("summary", tooltip="The scores in words, and what was skipped or is not available."),
                io.String.Output("scores", tooltip="The scores as a table; also in <filename_prefix>_scores.csv."),
                io.String.Output("pairs", tooltip="All pairs' figures as a table; also in <filename_prefix>.csv."),
            ],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def validate_inputs(
        cls,
        results_folder: str | None = None,
        content_folder: str | None = None,
        style_folder: str | None = None,
        filename_prefix: str | None = None,
        lpips_weights: str | None = None,
        fid_weights: str | None = None,
    ) -> bool | str:
        """What is typed in is checked before anything runs; None comes over a wire. Folders may be made by the run."""
        folders = zip(FOLDERS, (results_folder, content_folder, style_folder), strict=True)
        checks: list[Callable[[], object]] = [
            partial(host_home, name, widget) for widget, name in folders if name is not None
        ]
        checks += [] if filename_prefix is None else [partial(output_name, filename_prefix)]
        weights = ((LPIPS, lpips_weights), (FID, fid_weights))
        checks += [partial(require_listed, folder, name) for folder, name in weights if name is not None]
        return refusal(*checks)

    @classmethod
    def fingerprint_inputs(cls, lpips_weights: str | None = None, fid_weights: str | None = None, **rest: Any) -> str:
        """Pictures and weights that were added or changed are other figures, though the names are the same."""
        weights = [model_stamp(LPIPS, lpips_weights), model_stamp(FID, fid_weights)]
        return " ".join([*weights, *(listing(rest.get(widget), widget) for widget in FOLDERS)])

    @classmethod
    def execute(
        cls,
        results_folder: str,
        content_folder: str,
        style_folder: str,
        filename_prefix: str,
        size: int,
        lpips_weights: str,
        fid_weights: str,
        clip_vision: Any = None,
    ) -> io.NodeOutput:
        names = (results_folder, content_folder, style_folder)
        for widget, text in zip((*FOLDERS, "filename_prefix"), (*names, filename_prefix), strict=True):
            require_text(text, widget, LONGEST_PATH)
        plan = make_plan(*(host_folder(name, widget) for name, widget in zip(names, FOLDERS, strict=True)))
        table = PairTable(output_file(filename_prefix, ".csv"), [metric.key for metric in METRICS])
        settings = settings_of(size, lpips_weights, clip_vision)
        features = value_or_reason(features_of, fid_weights, output_file(filename_prefix, "_features"), size)
        folder = folder_name(results_folder, "results_folder")
        evaluation = Evaluation(folder, table, settings, features, Files(digest, read_picture))
        progress, total = ProgressBar(len(plan.tasks)), len(plan.tasks)
        say = host_text.Counter("pair", kept=f"the pairs so far are in {table.path.name}")

        def on_pair(done: int) -> None:
            stop_if_cancelled()
            progress.update_absolute(done, total)
            say(done, total)

        result = evaluation.run(plan, on_pair)
        scores = scores_of(result, "" if isinstance(features, NotAvailable) else features.name)
        text, scores_csv = describe(plan, result, scores), scores_table(scores)
        write_text(output_file(filename_prefix, "_scores.csv"), scores_csv)
        pairs = csv_text(table.columns, [[pair.row[name] for name in table.columns] for pair in result.pairs])
        return host_text.output(text, scores_csv, pairs, text=text)
