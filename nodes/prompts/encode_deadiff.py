"""DEADiff Encode: style, semantics or both of a picture as tokens for cross-attention (Qi et al. 2024)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.image_prompt.deadiff import BOTH, CONTENT, CONTENT_LAYERS, MODES, STYLE, DEADiff
from ...diffstyler_core.injection.sites import format_layers
from .. import sockets
from ..host import text as host_text
from ..host.checks.pictures import unit_pictures
from ..host.checks.text import require_choice
from ..host.image_prompt.encode import hidden_states, image_tokens, require_clip


class DEADiffEncode(io.ComfyNode):
    """A picture as an image prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_DEADiffEncode",
            display_name="DEADiff Encode",
            category=sockets.PROMPTS,
            description="Extracts the style of a picture without what it shows, or what it shows without its style, "
            "as tokens that Joint Text-Image Attention lets a model read beside the prompt.",
            search_aliases=[
                "deadiff",
                "style of a picture",
                "style reference",
                "reference image",
                "image prompt",
                "style encode",
                "content encode",
                "ip adapter",
                "disentangle style",
                "diffstyler",
            ],
            inputs=[
                sockets.DEADiff.Input("deadiff", tooltip="From Load DEADiff."),
                io.ClipVision.Input(
                    "clip_vision", tooltip="CLIP ViT-L/14 at 224 pixels, from Load CLIP Vision. Others are refused."
                ),
                io.Image.Input(
                    "image",
                    tooltip="The reference. CLIP sees it squeezed into a square. Of a batch the mean is taken: what "
                    "the pictures share.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=STYLE,
                    tooltip="style: the prompt says what is seen, the picture how. content: the picture says what is "
                    "seen, the prompt how. style and content: both from the picture (DEADiff's reconstruction).",
                ),
                io.Image.Input(
                    "content_image",
                    optional=True,
                    tooltip="Mode style and content only: the content comes from this picture, the style from image.",
                ),
            ],
            outputs=[sockets.ImagePrompt.Output("image_prompt", tooltip="For Joint Text-Image Attention.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def execute(
        cls, deadiff: DEADiff, clip_vision: Any, image: Tensor, mode: str, content_image: Tensor | None = None
    ) -> io.NodeOutput:
        require_choice(mode, "mode", list(MODES))
        if content_image is not None and mode != BOTH:
            raise ValueError(
                f"content_image: mode '{mode}' reads image alone. Unplug it, or choose mode '{BOTH}', which takes the "
                "content from it and the style from image."
            )
        require_clip(clip_vision, deadiff.vision)
        pictures = unit_pictures(image, "image")
        content = None if content_image is None else unit_pictures(content_image, "content_image")
        seen = dict.fromkeys(MODES[mode], hidden_states(clip_vision, pictures))
        if content is not None:
            seen[CONTENT] = hidden_states(clip_vision, content)
        tokens = {name: image_tokens(deadiff, name, hidden) for name, hidden in seen.items()}
        return host_text.output(deadiff.prompt(tokens), text=describe(deadiff, tokens, seen))


def describe(deadiff: DEADiff, tokens: dict[str, Tensor], seen: dict[str, Tensor]) -> str:
    """Which layers read what. seen: the pictures behind each instruction, however CLIP gives them."""
    fine = tuple(number for number in range(len(deadiff.projections)) if number not in CONTENT_LAYERS)
    lines = []
    for name, layers in ((STYLE, fine), (CONTENT, CONTENT_LAYERS)):
        count = len(seen.get(name, ()))
        what = f"{tokens[name].shape[1]} tokens" if name in tokens else "tokens of zeros"
        mean = f", the mean of {count} pictures" if count > 1 else ""
        lines.append(f"{name}: {what} in layers {format_layers(layers)}{mean}")
    return "\n".join(lines)
