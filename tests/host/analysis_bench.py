"""The analysis nodes with short defaults, and a scene to look at: a model, a content's trajectory, a style LoRA."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace
from typing import Any

import comfy.sd
import regions_bench as rb
import steps
import tiny

ROOT = rb.Path(__file__).parents[2]


def scene(pack, seed: int, kind: str = "small", model: Any = None, size: int = 8, **inversion: Any) -> SimpleNamespace:
    """A MODEL, the trajectory of a random content on it, its prompt, and a LoRA that shows."""
    model = model or tiny.make_model(kind, seed=seed)
    source = tiny.make_prompt(seed, sdxl=kind == "sdxl")
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(seed, size), source, **inversion)
    lora = steps.random_lora(pack, model, seed, size=0.3)
    return SimpleNamespace(model=model, trajectory=trajectory, source=source, lora=lora)


def wires(s: SimpleNamespace, **changes: Any) -> dict[str, Any]:
    """The inputs of both feature nodes: all layers of 'small' at the paper's timestep, no LoRA."""
    wired = {"model": s.model, "trajectory": s.trajectory, "source": s.source}
    return {**wired, "layers": "0-3", "timestep": 540, "lora_strength": 1.0, **changes}


def looked(pack, s: SimpleNamespace, **changes: Any):
    features = pack.host.sampling.features
    return features.evaluate_features(features.FeatureRequest(**wires(s, **changes)))


def pca(pack, s: SimpleNamespace, **changes: Any):
    """((picture, text), words on the node, picture on the node)."""
    return rb.run(pack.evaluate.feature_pca.FeaturePCA, **wires(s, **changes))


def similarities(pack, s: SimpleNamespace, **changes: Any) -> tuple[dict[tuple[str, int], tuple[float, float]], str]:
    """({(compared, layer): (per pixel, whole)}, words) of Feature Similarity."""
    (_, text, _), words, _ = rb.run(pack.evaluate.feature_similarity.FeatureSimilarity, **wires(s, **changes))
    table = {
        (row["compared"], int(row["layer"])): (float(row["cosine_per_pixel"]), float(row["cosine_whole"]))
        for row in csv.DictReader(io.StringIO(text))
    }
    return table, words


def report(pack, model, latent, source, **changes: Any):
    """((plot, csv, text), rows of the csv as numbers, picture on the node) of the Reconstruction Report."""
    settings = {"steps": steps.STEPS, "refinement": 2, **changes}
    node = pack.evaluate.reconstruction.ReconstructionReport
    outputs, words, picture = rb.run(node, model=model, latent=latent, source=source, **settings)
    assert words == outputs[2]
    rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(outputs[1]))]
    return outputs, rows, picture


def loaded(model, lora, strength: float = 1.0):
    """The MODEL as the stock Load LoRA returns it."""
    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0.0)[0]
