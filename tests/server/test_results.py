"""demo/results.md's prompts on a real server, small: every variant gives figures and a picture of its own."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tools import results, results_prompt, results_tables

SMALL = results_prompt.Settings(steps=10, train_steps=2, side=64)


def test_every_variant_of_a_style_is_measured(client, tmp_path):
    styles = results_prompt.STYLES[2:3]
    api = results_prompt.content_prompt("content_bay.jpg", styles, given=SMALL)
    run = results.kept_run(client, api, tmp_path, "")
    rows = results.rows_of("content_bay.jpg", run, styles)
    assert [row.variant for row in rows] == [variant.name for variant in results_prompt.VARIANTS]
    assert {(row.content, row.style) for row in rows} == {("bay", "mosaic")}
    pictures = []
    for _, _, title in results_prompt.results_of(styles):
        with Image.open(io.BytesIO((tmp_path / f"{title} - saved.png").read_bytes())) as picture:
            pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert all(abs(a - b).max() > 0 for i, a in enumerate(pictures) for b in pictures[:i]), "each differs"
    edges = {row.variant: row.values["edges"] for row in rows}
    assert edges[results_prompt.FULL.name] > edges[results_prompt.RANDOM.name] + 0.2
    assert all(row.seconds > 0 for row in rows)


def test_table_1_compares_every_lora_with_every_picture(client, tmp_path):
    styles = results_prompt.STYLES[1:3]
    run = results.kept_run(client, results_prompt.similarity_prompt(styles, SMALL), tmp_path, "")
    similar = results.similarities_of(run, styles)
    kinds = [one.kind for one in similar]
    assert (kinds.count("in-domain"), kinds.count("another style"), kinds.count("a content")) == (2, 2, 10)
    assert all(set(one.cosines) == set(results_prompt.LAYERS) for one in similar)
    assert all(0.5 < value <= 1.0 for one in similar for value in one.cosines.values())
    assert any(value < 0.99999 for one in similar for value in one.cosines.values()), "the LoRAs act"
    assert "| in-domain |" in results_tables.similarity(similar)[2]
