"""The analysis nodes on a real server: with nothing behind them they run, and show words and pictures."""

from __future__ import annotations

import io

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
    assert result.text("report").endswith("30 UNet evaluations (10 + 20)")
    for node in ("pca", "similarity", "report"):
        (image,) = result.images(node)
        with Image.open(io.BytesIO(client.image_bytes(image))) as shown:
            assert min(shown.size) > 300
    again = client.queue(prompt)
    assert {"pca", "similarity", "report"} <= again.cached
