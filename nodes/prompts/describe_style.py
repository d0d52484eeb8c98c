"""Describe Style: a style picture in words (InST with ShareGPT4V, section III)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.image_prompt.description import QUESTION, Cleaned, content_words, leave_out
from .. import sockets
from ..host import text as host_text
from ..host.checks.pictures import unit_pictures
from ..host.checks.refusal import refusal
from ..host.checks.text import require_choice, require_text
from ..host.describe.describe import by_clip, by_folder, source_of
from ..host.describe.folders import NONE, checked_folder, default_folder, folder_stamp, model_folders
from ..host.describe.request import LONGEST, LONGEST_QUESTION, Answer, Request, Sampling
from ..host.precision import PRECISIONS

AUTO = "auto"
LIKELIEST, RANDOM = "likeliest", "random"
Chosen = dict[str, Any] | None


class DescribeStyle(io.ComfyNode):
    """A description of a picture's style, to be used as a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_DescribeStyle",
            display_name="Describe Style",
            category=sockets.PROMPTS,
            description="Puts a picture's style into words with a vision language model, as a prompt for the style. "
            "Words of its content can be left out.",
            search_aliases=[
                "image to text",
                "caption",
                "captioning",
                "describe image",
                "interrogate",
                "image to prompt",
                "vision language model",
                "vlm",
                "llava",
                "sharegpt4v",
                "style description",
                "style prompt",
                "inst",
                "diffstyler",
            ],
            inputs=[*question_inputs(), *model_inputs()],
            outputs=[
                io.String.Output(
                    "description",
                    is_output_list=True,
                    tooltip="The style in words, without what leave_out names: one text for each picture.",
                ),
                io.String.Output(
                    "answer", is_output_list=True, tooltip="The model's whole answer: one text for each picture."
                ),
            ],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(
        cls, model_folder: str | None = None, leave_out: str | None = None, sampling: object = None
    ) -> bool | str:
        """What is typed in is checked before anything runs; None comes over a wire. ``sampling`` comes unasked."""
        checks: list[Callable[[], object]] = []
        if model_folder is not None and model_folder != NONE:
            checks.append(partial(checked_folder, str(model_folder)))
        if leave_out is not None:
            checks.append(partial(require_text, str(leave_out), "leave_out", LONGEST_QUESTION))
        return refusal(*checks)

    @classmethod
    def fingerprint_inputs(cls, model_folder: str | None = None, **_: Any) -> str:
        """Changed files are another model, though its folder's name is the same."""
        return folder_stamp(model_folder)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        question: str,
        leave_out: str,
        max_length: int,
        sampling: Chosen,
        model_folder: str,
        precision: str,
        clip: Any = None,
    ) -> io.NodeOutput:
        pictures = unit_pictures(image, "image")
        require_choice(precision, "precision", (AUTO, *PRECISIONS))
        words = content_words(require_text(leave_out, "leave_out", LONGEST_QUESTION))
        request = Request(question, max_length, sampling_of(sampling))
        folder = source_of(clip, model_folder, question)
        notes: tuple[str, ...] = ()
        if folder is None:
            answers = by_clip(pictures, clip, request)
        else:
            answers, notes = by_folder(pictures, folder, request, precision)
        cleaned = [cleaned_answer(answer, words, n) for n, answer in enumerate(answers, 1)]
        lines = [
            line for n, (a, c) in enumerate(zip(answers, cleaned, strict=True), 1) for line in told(a, c, n, max_length)
        ]
        return host_text.output(
            [each.text for each in cleaned], [answer.text for answer in answers], text="\n".join([*lines, *notes])
        )


def sampling_of(chosen: Chosen) -> Sampling | None:
    """How words are chosen. Raises ValueError for a way that there is not."""
    way = None if chosen is None else chosen["sampling"]
    require_choice(str(way), "sampling", (LIKELIEST, RANDOM))
    if chosen is None or way == LIKELIEST:
        return None
    return Sampling(chosen["temperature"], chosen["top_p"], chosen["seed"])


def cleaned_answer(answer: Answer, words: tuple[str, ...], number: int) -> Cleaned:
    """The answer without the words' clauses. Raises ValueError when nothing is left of it."""
    cleaned = leave_out(answer.text, words)
    if not cleaned.text:
        raise ValueError(
            f"leave_out: every clause about picture {number} names one of {', '.join(words)}, so nothing is left of "
            f"{answer.text!r:.300}. Leave out fewer words, or ask for the style alone."
        )
    return cleaned


def told(answer: Answer, cleaned: Cleaned, number: int, max_length: int) -> list[str]:
    """What the node shows of a picture: its description, what went, and what there is to know."""
    lines = [f"picture {number}: {cleaned.text}"]
    if cleaned.removed:
        lines.append("left out: " + "; ".join(cleaned.removed))
    if cleaned.unmet:
        lines.append("not named anyway: " + ", ".join(cleaned.unmet))
    if answer.is_cut:
        lines.append(f"note: cut off at max_length, {max_length} tokens")
    return lines


def question_inputs() -> list[io.Input]:
    """The picture, and what is asked."""
    return [
        io.Image.Input("image", tooltip="The style picture, or a batch: each gets a description of its own."),
        io.String.Input(
            "question",
            multiline=True,
            default=QUESTION,
            tooltip="What the model is asked about the picture. The default is that of InST with ShareGPT4V.",
        ),
        io.String.Input(
            "leave_out",
            default="",
            tooltip="Words of the content, e.g. woman, cat: clauses that name one are taken out. The node shows which.",
        ),
        io.Int.Input(
            "max_length",
            default=256,
            min=1,
            max=LONGEST,
            tooltip="Tokens of an answer at most, about 3 to 4 letters each. A longer answer is cut off, "
            "and the node says so.",
        ),
        io.DynamicCombo.Input(
            "sampling",
            options=[io.DynamicCombo.Option(LIKELIEST, []), io.DynamicCombo.Option(RANDOM, random_inputs())],
            tooltip="likeliest: always the likeliest word, the same answer every time. random: words are drawn; "
            "another seed, another answer.",
        ),
    ]


def random_inputs() -> list[io.Input]:
    """How words are drawn."""
    return [
        io.Float.Input(
            "temperature", default=0.7, min=0.01, max=2.0, step=0.01, tooltip="More draws unlikely words more often."
        ),
        io.Float.Input(
            "top_p", default=0.9, min=0.01, max=1.0, step=0.01, tooltip="Only the likeliest words that have this share."
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**64 - 1,
            control_after_generate=True,
            tooltip="Another seed, another answer.",
        ),
    ]


def model_inputs() -> list[io.Input]:
    """What describes."""
    return [
        io.Combo.Input(
            "model_folder",
            options=model_folders(),
            default=default_folder(),
            tooltip="A vision language model as transformers saves it, in a folder of models/vision_language. Choosing "
            "one that is not installed says where to get it. none: the wired clip.",
        ),
        io.Combo.Input(
            "precision",
            options=[AUTO, *PRECISIONS],
            default=AUTO,
            tooltip="Number format of model_folder's weights. auto: bf16 or fp16 on a GPU, fp32 on the CPU.",
            advanced=True,
        ),
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="Instead of model_folder: a text encoder that writes text about pictures (Qwen3-VL, Qwen3.5, "
            "Gemma 3 with vision, Gemma 4), from Load CLIP.",
        ),
    ]
