"""Feature Similarity: how much of the decoder's features a LoRA leaves as they are (DiffStyler 2026, table 1)."""

from __future__ import annotations

from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.evaluation.analysis import Similarity, csv_text, similarity
from ...diffstyler_core.lora.schedule import Lora
from ..drawing.canvas import colour_of
from ..drawing.plot import Line, Plot, draw_plot, linear_heights
from ..host import text as host_text
from ..host.inputs import Conditioning
from ..inputs.features import ANALYSIS, Looked, Wired, feature_inputs, look

HEADER = ("compared", "layer", "timestep", "cosine_per_pixel", "cosine_whole")


class Compared(NamedTuple):
    """One model's layers against the base's."""

    name: str
    layers: dict[int, Similarity]


def compare(looked: Looked) -> list[Compared]:
    """Every model but the first against the first."""
    base, *others = looked.columns.items()
    return [
        Compared(name, {layer: similarity(base[1][layer], feature) for layer, feature in column.items()})
        for name, column in others
    ]


def require_comparison(wired: Wired) -> None:
    """Raises ValueError when there is nothing to compare the base with."""
    if wired.second_model is None and wired.lora is None:
        raise ValueError(
            "second_model and lora: at least one is needed to compare the model with, got neither. "
            "Wire a LoRA from Train Style LoRA or Load LoRA Model, or the model after Load LoRA."
        )


def table(compared: list[Compared], t: int) -> str:
    """CSV: a row for each model and layer."""
    rows = [(name, layer, t, float(s.pixels), float(s.whole)) for name, all_ in compared for layer, s in all_.items()]
    return csv_text(HEADER, rows)


def describe(compared: Compared) -> str:
    """A line for the model, and one for each layer."""
    lines = [f"{compared.name} against base, cosine per pixel (as one vector)"]
    lines += [f"layer {layer}: {s.pixels:.4f} ({s.whole:.4f})" for layer, s in compared.layers.items()]
    return "\n".join(lines)


def draw_similarities(compared: list[Compared], t: int) -> Tensor:
    """IMAGE [1, H, W, 3]: similarity over layers; a line for the cosine per pixel, rings for the whole feature."""
    values = [value for one in compared for s in one.layers.values() for value in s]
    layers = list(compared[0].layers)
    lines = []
    for index, (name, found) in enumerate(compared):
        colour = colour_of(index)
        pixels, whole = (tuple((layers.index(k), s[i]) for k, s in found.items()) for i in (0, 1))
        lines.append(Line(f"{name}, per pixel", pixels, colour, f"mean {_mean(pixels):.4f}"))
        lines.append(Line(f"{name}, as one vector", whole, colour, f"mean {_mean(whole):.4f}", joined=False))
    marks = tuple((float(at), str(layer)) for at, layer in enumerate(layers))
    heights = linear_heights(values, 1.0, 0.01)
    return draw_plot(Plot(tuple(lines), marks, "decoder layer", f"cosine similarity to base, t = {t}", heights))


def _mean(points: tuple[tuple[float, float], ...]) -> float:
    return sum(value for _, value in points) / len(points)


class FeatureSimilarity(io.ComfyNode):
    """Cosine similarity between the features of the base model and of a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_FeatureSimilarity",
            display_name="Feature Similarity",
            category=ANALYSIS,
            description="Compares the decoder features of the base model with those under a LoRA, at one timestep on "
            "the same latent: cosine similarity for each layer. 1 means that the LoRA changes nothing there.",
            search_aliases=[
                "cosine similarity",
                "lora difference",
                "compare lora",
                "compare models",
                "unet features",
                "diffstyler",
            ],
            inputs=feature_inputs(lora_needed=True),
            outputs=[
                io.Image.Output("plot", tooltip="Similarity over the layers."),
                io.String.Output("csv", tooltip=f"A table: {', '.join(HEADER)}."),
                io.String.Output("text", tooltip="The same in words, with the step that was taken."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # it runs when nothing follows it
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        trajectory: Trajectory,
        source: Conditioning,
        layers: str,
        timestep: int,
        lora_strength: float,
        second_model: ModelPatcher | None = None,
        lora: Lora | None = None,
    ) -> io.NodeOutput:
        wired = Wired(model, trajectory, source, layers, timestep, lora_strength, second_model, lora)
        require_comparison(wired)
        looked = look(wired)
        compared = compare(looked)
        text = "\n".join([*looked.words, *(describe(one) for one in compared)])
        plot = draw_similarities(compared, looked.t)
        return host_text.output(plot, table(compared, looked.t), text, text=text, node=cls, picture=plot)
