"""Feature Similarity: how much of the decoder's features a LoRA leaves as they are (DiffStyler 2026, table 1)."""

from __future__ import annotations

from typing import NamedTuple

from comfy_api.latest import io

from ...diffstyler_core.diffusion.trajectory import Trajectory
from ...diffstyler_core.evaluation.csv_table import csv_text
from ...diffstyler_core.evaluation.similarity import Similarity, similarity
from ...diffstyler_core.lora.schedule import Lora
from .. import sockets
from ..drawing.palette import colour_of
from ..drawing.plot import Line, Plot, draw_plot
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning
from ..host.sampling.features import FeatureRequest, FeaturesByModel, evaluate_features
from ..host.types import ModelPatcher
from ..inputs.features import feature_inputs

HEADER = ("compared", "layer", "timestep", "cosine_per_pixel", "cosine_whole")


class Compared(NamedTuple):
    """One model's layers against the base's."""

    name: str
    layers: dict[int, Similarity]


def compare(features: FeaturesByModel) -> list[Compared]:
    """Every model but the first against the first."""
    (_, base), *others = features.models.items()
    return [
        Compared(name, {layer: similarity(base[layer], feature) for layer, feature in layers.items()})
        for name, layers in others
    ]


def require_comparison(request: FeatureRequest) -> None:
    """Raises ValueError when there is nothing to compare the base with."""
    if request.second_model is None and request.lora is None:
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


def similarity_plot(compared: list[Compared], t: int) -> Plot:
    """Similarity over layers: a line for the cosine per pixel, rings for the whole feature."""
    lines = []
    for index, (name, found) in enumerate(compared):
        pixels = tuple((float(at), s.pixels) for at, s in enumerate(found.values()))
        whole = tuple((float(at), s.whole) for at, s in enumerate(found.values()))
        lines.append(Line(f"{name}, per pixel", pixels, colour_of(index), f"mean {_mean(pixels):.4f}"))
        lines.append(Line(f"{name}, one vector", whole, colour_of(index), f"mean {_mean(whole):.4f}", joined=False))
    marks = tuple(str(layer) for layer in compared[0].layers)
    return Plot(tuple(lines), "decoder layer", f"cosine similarity to base, t = {t}", marks, top=1.0)


def _mean(points: tuple[tuple[float, float], ...]) -> float:
    return sum(value for _, value in points) / len(points)


class FeatureSimilarity(io.ComfyNode):
    """Cosine similarity between the features of the base model and of a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_FeatureSimilarity",
            display_name="Feature Similarity",
            category=sockets.EVALUATE,
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
        request = FeatureRequest(model, trajectory, source, layers, timestep, lora_strength, second_model, lora)
        require_comparison(request)
        features = evaluate_features(request)
        compared = compare(features)
        text = "\n".join([*features.notes, *(describe(one) for one in compared)])
        plot = draw_plot(similarity_plot(compared, features.t))
        return host_text.output(plot, table(compared, features.t), text, text=text, picture=plot)
