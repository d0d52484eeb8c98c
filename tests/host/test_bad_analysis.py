"""Refusals of the analysis nodes: named input, received value, remedy, before any UNet evaluation."""

from __future__ import annotations

import math

import analysis_bench as ab
import pytest
import steps
import tiny
import torch
from node_bench import EMPTY, STYLE, make_flux, refused, table

pytest_plugins = ("guards",)

FEATURES = [
    ({"layers": "2,9"}, "feature layers 9 do not exist", "feature layers 0-3"),
    ({"layers": "4-11"}, "feature layers 4-11 do not exist", "0-3"),
    ({"layers": ""}, "layers: at least one", "''", "'2,5,7'"),
    ({"layers": " , "}, "layers: at least one", "' , '"),
    ({"layers": "2;5"}, "layers must be written like", "'2;5'"),
    ({"layers": "3-1"}, "layers", "'3-1'", "'1-3'"),
    ({"timestep": -1}, "timestep must lie in 0..999", "got -1"),
    ({"timestep": 1000}, "timestep must lie in 0..999", "got 1000"),
    ({"source": EMPTY + STYLE}, "source: ", "got 2", "Conditioning Combine"),
    ({"source": []}, "source: ", "got 0"),
    ({"lora": {}}, "lora matches 0 layers", "this model's family"),
    ({"lora": {"some.key": torch.zeros(2, 2)}}, "lora matches 0 layers", "'some.key'"),
]
REPORT = [
    ({"latent": tiny.make_latent(channels=16)}, "latent: ", "[1, 16, 16, 16]", "VAE"),
    ({"latent": tiny.make_latent(batch=3)}, "latent: ", "batch of 3", "Latent From Batch"),
    ({"latent": {"samples": torch.full((1, 4, 8, 8), math.nan)}}, "latent ", "NaN"),
    ({"source": EMPTY + STYLE}, "source: ", "got 2"),
    ({"steps": 0}, "steps", "got 0", "1..999"),
    ({"steps": 1000}, "steps", "got 1000", "1..999"),
    ({"refinement": 0}, "refinement must be 1 or more", "got 0", "plain"),
    ({"refinement": -2}, "refinement must be 1 or more", "got -2"),
]


@pytest.fixture(scope="module")
def scene(pack, shared_bench):
    with torch.inference_mode():
        yield ab.scene(pack, 1, model=shared_bench.model)


@pytest.mark.parametrize(**table(FEATURES))
def test_both_feature_nodes_refuse(pack, bench, scene, changes, words):
    with refused(bench, *words):
        ab.pca(pack, scene, **{"lora": scene.lora, **changes})
    with refused(bench, *words):
        ab.similarities(pack, scene, **{"lora": scene.lora, **changes})


def test_nothing_to_compare_with(pack, bench, scene):
    with refused(bench, "second_model and lora", "got neither", "Load LoRA"):
        ab.similarities(pack, scene)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "velocity"])
def test_another_family_is_refused_wherever_it_is_wired(pack, bench, scene, kind):
    other = tiny.make_model("small", velocity=True) if kind == "velocity" else tiny.make_model(kind)
    with refused(bench, "trajectory was made with another kind of model", "Wire the same checkpoint"):
        ab.pca(pack, scene, model=other)
    with refused(bench, "trajectory, as second_model sees it, was made with another kind of model"):
        ab.similarities(pack, scene, second_model=other)


@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_a_lora_of_another_family_is_refused(pack, bench, scene, strength):
    """Even where it would not act."""
    lora = steps.random_lora(pack, tiny.make_model("sd15"), 0)
    with refused(bench, "lora ", "this model"):
        ab.similarities(pack, scene, lora=lora, lora_strength=strength)


def test_a_model_without_a_unet_is_refused(pack, bench, scene):
    for run in (ab.pca, ab.similarities):
        with refused(bench, "model: DiffStyler needs a Stable Diffusion UNet", "Flux"):
            run(pack, scene, model=make_flux(), lora=scene.lora)
    with refused(bench, "model: DiffStyler needs a Stable Diffusion UNet", "Flux"):
        ab.report(pack, make_flux(), tiny.make_latent(), EMPTY)


@pytest.mark.parametrize(**table(REPORT))
def test_the_report_refuses(pack, bench, changes, words):
    wired = {"model": bench.model, "latent": tiny.make_latent(), "source": EMPTY, **changes}
    with refused(bench, *words):
        ab.report(pack, **wired)


def test_features_that_overflow_are_said(pack, bench, scene):
    lora = {key: weight * 1e30 if "lora_up" in key else weight for key, weight in scene.lora.items()}
    with pytest.raises(ValueError, match=r"features hold values that are not finite.*its LoRA"):
        ab.similarities(pack, scene, second_model=ab.loaded(scene.model, lora))
