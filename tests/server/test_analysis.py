"""The analysis nodes on a real server: with nothing behind them they run, and show words and pictures."""

from __future__ import annotations

import csv
import io

import numpy as np
from PIL import Image

from tests.server.small_run import CHECKPOINT, INVERT, TRAIN, only, small_run, with_nodes


def test_analysis_nodes_end_a_graph(client):
    base = small_run()
    content = {name: base[INVERT]["inputs"][name] for name in ("latent", "source")}
    looking = {
        "model": [CHECKPOINT, 0], "trajectory": [INVERT, 0], "source": content["source"], "layers": "2,5,7",
        "timestep": 540, "lora_strength": 1.0, "lora": [TRAIN, 0], "second_model": [CHECKPOINT, 0],
    }  # fmt: skip
    prompt = with_nodes(
        base,
        pca=("DiffStyler_FeaturePCA", looking),
        similarity=("DiffStyler_FeatureSimilarity", looking),
        report=(
            "DiffStyler_ReconstructionReport",
            {"model": [CHECKPOINT, 0], **content, "steps": 5, "refinement": 2},
        ),
    )
    prompt = only(prompt, "pca", "similarity", "report")
    result = client.queue(prompt)
    assert "step 4 of 10, t = 501, the nearest to 540; 3 UNet evaluations" in result.text("pca")
    assert "layer 7: 1.0000 (1.0000)" in result.text("similarity"), "the second model is the base itself"
    assert "\n30 UNet evaluations (10 + 20)" in result.text("report")
    for node in ("pca", "similarity", "report"):
        (image,) = result.images(node)
        with Image.open(io.BytesIO(client.image_bytes(image))) as shown:
            assert min(shown.size) > 300
    again = client.queue(prompt)
    assert {"pca", "similarity", "report"} <= again.cached


def test_a_set_is_evaluated_taken_up_and_ends_a_graph(server, client):
    """The network's weights are not there: all else is measured, and the words say why FID is not."""
    base, noise = server.base_directory, np.random.default_rng(0)
    names = ("input/c/cat", "input/s/ink", "input/s/oil", "output/r/cat_stylized_ink", "output/r/cat_stylized_oil")
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), np.uint8)).save(base / f"{name}.png")
    inputs = {
        "results_folder": "output/r", "content_folder": "input/c", "style_folder": "input/s", "size": 64,
        "filename_prefix": "tables/set", "lpips_weights": "none", "fid_weights": "art_inception.pth",
    }  # fmt: skip
    prompt = {"1": {"class_type": "DiffStyler_EvaluateSet", "inputs": inputs}}
    told: list[str] = []
    result = client.queue(prompt, lambda step: told.append(step.event))
    assert "2 pairs of 1 contents x 2 styles = 2 combinations; 2 computed now" in result.text("1")
    assert "not available: FID: there is no 'art_inception.pth' in models/fid" in result.text("1")
    assert told.count("step") == 3, "none, one and two pairs"
    with (base / "output" / "tables" / "set.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert [(row["result"], row["style"]) for row in pairs] == [
        ("output/r/cat_stylized_ink.png", "ink.png"), ("output/r/cat_stylized_oil.png", "oil.png"),
    ]  # fmt: skip
    assert all(0 < float(row["psnr"]) < 20 for row in pairs)
    assert (base / "output" / "tables" / "set_scores.csv").is_file()
    assert client.queue(prompt).cached == {"1"}
    Image.fromarray(noise.integers(0, 256, (40, 48, 3), np.uint8)).save(base / "output/r/cat_stylized_ink_00002_.png")
    assert "1 computed now, 2 taken from the table" in client.queue(prompt).text("1")
