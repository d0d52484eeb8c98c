"""The prompts behind demo/settings.md: one content in every style, with other layers and windows injected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tools import results_prompt as rp
from tools.comfy_client import Api


class Choice(NamedTuple):
    """What of the content is injected. Layers as people write them; windows as shares of the run."""

    features: str
    attention: str
    feature_end: float = 0.6
    attention_end: float = 0.5
    mode: str = "adaptive"

    @property
    def name(self) -> str:
        """As the tables say it."""
        layers = f"features {self.features or 'none'}, attention {self.attention or 'none'}"
        if (self.feature_end, self.attention_end, self.mode) == (0.6, 0.5, "adaptive"):
            return layers
        return f"{layers}; {100 * self.feature_end:g} %, {100 * self.attention_end:g} %, {self.mode}"

    @property
    def short(self) -> str:
        """Over a small picture: features / attention, and windows other than the paper's."""
        layers = f"{self.features or '-'} / {self.attention or '-'}"
        if self.mode == "fixed":
            return f"{layers} fixed"
        return layers if self.feature_end == 0.6 else f"{layers} {100 * self.feature_end:g} %"


NOTHING = Choice("", "", 0.0, 0.0, "fixed")
PAPER = Choice("4", "4-11")
BY_GRID = Choice("7", "7-11")
CHOSEN = Choice("", "9-11")
CHOICES = (
    NOTHING,
    PAPER,
    BY_GRID,
    Choice("7", "7-11", 0.4, 0.3),
    Choice("7", "7-11", 0.6, 0.5, "fixed"),
    Choice("7", "9-11"),
    Choice("7", "9-11", 0.6, 0.5, "fixed"),
    CHOSEN,
    Choice("9", "9-11"),
    Choice("7", "", 0.6, 0.0, "fixed"),
    Choice("9", "", 0.6, 0.0, "fixed"),
)


def results_of(styles: Sequence[rp.Style] = rp.STYLES) -> Iterator[tuple[rp.Style, Choice, str]]:
    """(style, choice, what their nodes are called)."""
    for style in styles:
        for choice in CHOICES:
            yield style, choice, f"{style.name}, {choice.name}"


def content_prompt(content: str, styles: Sequence[rp.Style] = rp.STYLES, given: rp.Settings | None = None) -> Api:
    """One content, inverted and captured once, with all that any choice takes; every choice sampled and compared."""
    settings = given or rp.Settings()
    nodes = rp.Nodes()
    rp.add_models(nodes, settings)
    rp.add_picture(nodes, "content", content, settings)
    rp.add_inverted(nodes, settings)
    nodes.add(
        "capture", "DiffStyler_Capture", model=["checkpoint", 0], trajectory=["inversion", 0], source=["empty", 0],
        storage="memory", precision="fp16", feature_layers="4,7,9", self_attention_layers="4-11",
        cross_attention_layers="", feature_end_percent=1.0, attention_end_percent=1.0,
    )  # fmt: skip
    for choice in CHOICES:
        nodes.add(
            choice.name, "DiffStyler_InjectionSettings", feature_layers=choice.features, cross_attention_layers="",
            self_attention_layers=choice.attention, preset="custom", **_windows(choice),
        )  # fmt: skip
    for style in styles:
        rp.add_style(nodes, style, settings)
    for style, choice, title in results_of(styles):
        latent = nodes.add(
            f"{title} - latent", "DiffStyler_InjectedSampler", model=["checkpoint", 0], features=["capture", 0],
            positive=[f"{style.name} learnt", 0], negative=["negative", 0], cfg=4.0, lora_name="none",
            lora_strength=1.0, lora=[f"lora {style.name}", 0], outside="content", mask_grow=0, mask_feather=0,
            preset="paper 2026", injection=[choice.name, 0],
        )  # fmt: skip
        rp.add_compared(nodes, style, title, latent)
    return nodes.api


def _windows(choice: Choice) -> dict[str, Any]:
    return {
        "preset.feature_end_percent": choice.feature_end,
        "preset.attention_end_percent": choice.attention_end,
        "preset.attention_mode": choice.mode,
        "preset.blend": "qk",
    }
