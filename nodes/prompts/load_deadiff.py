"""Load DEADiff: the trained parts of a DEADiff checkpoint (Qi et al. 2024)."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from .. import sockets
from ..host import text as host_text
from ..host.checks.refusal import refusal
from ..host.identity import model_stamp
from ..host.image_prompt.files import FOLDER, deadiff_names, deadiff_path, read_deadiff
from ..host.not_installed import first_installed, plain


class LoadDEADiff(io.ComfyNode):
    """A file of models/deadiff."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_LoadDEADiff",
            display_name="Load DEADiff",
            category=sockets.PROMPTS,
            description="Reads what DEADiff trained: two query transformers that extract style or semantics of a "
            "picture, and the projections through which SD1.5's cross-attention reads them. Only tensors are read.",
            search_aliases=[
                "deadiff",
                "deadiff loader",
                "style encoder",
                "qformer",
                "q-former",
                "blip diffusion",
                "style reference",
                "ip adapter",
                "load style model",
                "diffstyler",
            ],
            inputs=[
                io.Combo.Input(
                    "deadiff_name",
                    options=deadiff_names(),
                    default=first_installed(deadiff_names()),
                    tooltip="A file of models/deadiff: .ckpt, .pth, .pt or .safetensors. Choosing one that is not "
                    "installed says where to get it.",
                )
            ],
            outputs=[sockets.DEADiff.Output("deadiff", tooltip="For DEADiff Encode.")],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, deadiff_name: str | None = None) -> bool | str:
        """A file that is not there is refused before anything runs; None comes over a wire."""
        return True if deadiff_name is None else refusal(partial(deadiff_path, str(deadiff_name)))

    @classmethod
    def fingerprint_inputs(cls, deadiff_name: str | None = None) -> str:
        """A changed file is another checkpoint, though its name is the same."""
        return model_stamp(FOLDER, plain(deadiff_name or ""))

    @classmethod
    def execute(cls, deadiff_name: str) -> io.NodeOutput:
        deadiff, unused = read_deadiff(deadiff_path(deadiff_name))
        queries = next(iter(deadiff.extractors.values())).query_tokens.shape[1]
        words = [
            f"{deadiff.source}: style and content, {queries} tokens each, {len(deadiff.projections)} layers",
            f"not used: {unused or 'nothing'}",
        ]
        return host_text.output(deadiff, text="\n".join(words))
