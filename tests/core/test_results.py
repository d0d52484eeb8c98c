"""demo/results.md: what its prompts hold, and that its tables say what the numbers say."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from tools import results, results_prompt, results_tables
from tools.comfy_client import ImageRef, PromptResult
from tools.demo_sheet import Panel, save_grid


def rows(rng):
    """Noise, for 2 contents, 2 styles and all variants."""
    return [
        results_tables.Row(
            content, style, variant.name, {m: float(rng.random()) for m in results_tables.COLUMNS}, float(rng.random())
        )
        for content in ("cat", "bay")
        for style in ("ink", "oil")
        for variant in results_prompt.VARIANTS
    ]


def chosen(table, variant, metric):
    return np.array([row.values[metric] for row in table if row.variant == variant.name])


@pytest.mark.parametrize("steps", [10, 50])
def test_a_prompt_inverts_once_and_samples_every_variant_with_its_own_settings(steps):
    api = results_prompt.content_prompt("content_bay.jpg", given=results_prompt.Settings(steps=steps))
    kinds = [node["class_type"] for node in api.values()]
    pairs = len(results_prompt.STYLES)
    assert kinds.count("DiffStyler_DDIMInvert") == kinds.count("DiffStyler_Capture") == 1
    assert kinds.count("DiffStyler_InjectedSampler") == pairs * (len(results_prompt.VARIANTS) - 1)
    assert kinds.count("DiffStyler_InjectedGuider") == kinds.count("RandomNoise") == pairs
    for style, variant, title in results_prompt.results_of():
        sampler = api.get(f"{title} - guider") or api[f"{title} - latent"]
        for name in ("feature_end_percent", "attention_end_percent", "attention_mode"):
            assert sampler["inputs"][f"preset.{name}"] == variant.settings[name]
        assert all(0.0 <= sampler["inputs"][f"preset.{kind}_end_percent"] <= 1.0 for kind in ("feature", "attention"))
        assert sampler["inputs"].get("lora") == ([f"lora {style.name}", 0] if variant.lora else None)
        prompt = api[sampler["inputs"]["positive"][0]]["inputs"]["text"]
        assert prompt == (style.learnt if variant.lora else style.described)
    links = [value[0] for node in api.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert set(links) <= set(api)
    assert not [node_id for node_id in api if set(":./") & set(node_id)], "ids are file names, and the host reads some"


def test_means_are_the_means_and_claims_count_pairs():
    table = rows(np.random.default_rng(1))
    text = results_tables.report(table, [similar("in-domain", 0.9)], "1 s on a machine")
    for variant in results_prompt.VARIANTS:
        line = next(line for line in text.splitlines() if line.startswith(f"| {variant.name} |"))
        values = chosen(table, variant, "edges")
        assert f"| {values.mean():.3g} ± {values.std(ddof=1):.2g} |" in line
    for claim in results_tables.CLAIMS:
        more, less = (chosen(table, variant, claim.metric) for variant in (claim.more, claim.less))
        line = next(line for line in text.splitlines() if line.startswith(f"| {claim.words} |"))
        assert f"{(more > less).sum()} of 4 pairs" in line
        assert ("**not**" in line) == (more.mean() <= less.mean())
    assert "in 1 s on a machine" in text


def similar(kind, value):
    return results_tables.Similar(kind, "ink", "oil", {2: value, 5: value / 2, 7: value / 3})


def test_table_1_is_the_mean_over_cases():
    lines = results_tables.similarity([similar("in-domain", 0.9), similar("a content", 0.6), similar("a content", 0.3)])
    assert lines[-2:] == [
        "| in-domain | 0.9000 | 0.4500 | 0.3000 | 1 |",
        "| a content | 0.4500 | 0.2250 | 0.1500 | 2 |",
    ]


def test_all_rows_are_in_the_csv(tmp_path):
    table = rows(np.random.default_rng(2))
    results_tables.write_rows(tmp_path / "r.csv", table)
    with (tmp_path / "r.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(table)
    assert [float(line["edges"]) for line in read] == pytest.approx([row.values["edges"] for row in table], rel=1e-5)


@dataclasses.dataclass
class Client:
    """Counts prompts; its pictures are one pixel."""

    runs: int = 0

    def queue(self, api, shown):
        self.runs += 1
        outputs = {"t": {"text": ["a,b"]}, "p": {"images": [{"filename": "x", "subfolder": "", "type": "temp"}]}}
        return PromptResult("id", outputs, {"t": 1.0}, frozenset(), 2.0)

    def image_bytes(self, image: ImageRef):
        return image.filename.encode()


def test_what_is_done_is_not_done_again_unless_something_changed(tmp_path):
    client = Client()
    api = {
        "t": {"class_type": "PreviewAny", "inputs": {}, "_meta": {"title": "t"}},
        "p": {"class_type": "PreviewImage", "inputs": {}, "_meta": {"title": "p"}},
    }
    first = results.kept_run(client, api, tmp_path / "run", "a checkpoint")
    assert first["texts"] == {"t": "a,b"}
    assert (tmp_path / "run" / "p.png").read_bytes() == b"x"
    assert results.kept_run(client, api, tmp_path / "run", "a checkpoint") == first
    assert client.runs == 1
    results.kept_run(client, api, tmp_path / "run", "another checkpoint")
    api["t"]["inputs"]["steps"] = 2
    results.kept_run(client, api, tmp_path / "run", "another checkpoint")
    assert client.runs == 3


def test_the_code_and_the_checkpoint_are_in_the_fingerprint(tmp_path):
    for name in ("nodes/a.py", "diffstyler_core/b.py", "demo/c.safetensors", "demo/pictures/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    seen = {results.fingerprint_of(tmp_path)}
    for name in ("nodes/a.py", "diffstyler_core/b.py", "demo/c.safetensors", "demo/pictures/d.jpg"):
        (tmp_path / name).write_text("2")
        seen.add(results.fingerprint_of(tmp_path))
    assert len(seen) == 5


def test_a_grid_has_a_row_for_each_style(tmp_path):
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(encoded, "PNG")
    row = [Panel("a long label that goes over two lines", encoded.getvalue())] * 3
    save_grid([row, row[:2]], tmp_path / "grid.png", 64)
    with Image.open(tmp_path / "grid.png") as sheet:
        red = np.asarray(sheet.convert("RGB"))[..., 1] == 0
    assert red.sum() >= 5 * 64 * 64
    assert red[:, -64:].sum() < red[:, :64].sum()
