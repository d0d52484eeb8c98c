"""Refusals of Invert, Capture and Sampler: named input, received value, remedy, before any UNet evaluation."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from node_bench import EMPTY, STEPS, STYLE, make_flux, refused, table

pytest_plugins = ("guards",)


def not_finite(value, **changes):
    """A LATENT with one bad value."""
    latent = tiny.make_latent(**changes)
    latent["samples"][0, 0, 0, 0] = value
    return latent


INVERT = [
    ({"latent": tiny.make_latent(channels=16)}, "latent: ", "[B, 4, H, W]", "[1, 16, 16, 16]", "VAE"),
    ({"latent": {"samples": torch.zeros(1, 4, 5, 8, 8)}}, "latent: ", "[1, 4, 5, 8, 8]", "VAE"),
    ({"latent": not_finite(math.nan)}, "latent ", "NaN", "check the node that made it"),
    ({"latent": not_finite(math.inf)}, "latent ", "infinity", "check the node that made it"),
    ({"source": EMPTY + STYLE}, "source: ", "got 2", "Conditioning Combine"),
    ({"source": []}, "source: ", "got 0", "CLIP Text Encode"),
    ({"steps": 0}, "steps", "got 0", "1..999"),
    ({"steps": 1000}, "steps", "got 1000", "1..999"),
    ({"spacing": "trailing"}, "spacing", "'trailing'", "leading"),
    ({"refinement": -1}, "refinement", "-1", "0 or more"),
]
CAPTURE = [
    ({"feature_layers": "4"}, "feature layers 4 do not exist", "0-3"),
    ({"self_attention_layers": "1-3"}, "self-attention layers 1 do not exist", "2-3"),
    ({"cross_attention_layers": "0,99"}, "cross-attention layers 0,99 do not exist", "2-3"),
    ({"feature_layers": "4;5"}, "feature_layers", "'4;5'", "4,6-8"),
    ({"self_attention_layers": "11-4"}, "self_attention_layers", "'11-4'", "'4-11'"),
    ({"cross_attention_layers": "every"}, "cross_attention_layers", "'every'", "4,6-8"),
    ({"feature_layers": "-4"}, "feature_layers", "'-4'", "4,6-8"),
    ({"feature_steps": STEPS + 1}, "feature_end_percent", "0..1", "got 1.25"),
    ({"attention_steps": 50}, "attention_end_percent", "0..1", "got 12.5"),
    ({"feature_steps": -1}, "feature_end_percent", "0..1", "got -0.25"),
    ({"feature_layers": "", "self_attention_layers": ""}, "nothing to capture", "Name layers"),
    (
        {"feature_steps": 0, "attention_steps": 0},
        "nothing to capture",
        "none of the 4 steps",
        "raise feature_end_percent",
    ),
    ({"source": EMPTY + STYLE}, "source: ", "got 2", "Conditioning Combine"),
]
SAMPLER = [
    ({"feature_steps": STEPS + 1}, "feature_end_percent", "0..1", "got 1.25"),
    ({"feature_steps": -1}, "feature_end_percent", "0..1", "got -0.25"),
    ({"attention_steps": 50}, "attention_end_percent", "0..1", "got 12.5"),
    ({"attention_mode": "soft"}, "attention_mode", "'soft'", "adaptive"),
    ({"blend": "none"}, "blend", "'none'", "qk"),
    ({"start_latent": tiny.make_latent(size=24)}, "start_latent: ", "[1, 4, 24, 24]", "[1, 4, 16, 16]", "x_T"),
    ({"start_latent": tiny.make_latent(channels=16)}, "start_latent: ", "[1, 16, 16, 16]", "VAE"),
    ({"start_latent": tiny.make_latent(batch=2)}, "start_latent: ", "[2, 4, 16, 16]", "[1, 4, 16, 16]", "x_T"),
    ({"start_latent": not_finite(math.nan)}, "start_latent ", "NaN", "check the node that made it"),
]


@pytest.fixture(scope="module")
def made(shared_bench):
    """What the later nodes are fed with."""
    trajectory = shared_bench.invert()[0]
    return {"trajectory": trajectory, "features": shared_bench.capture(trajectory=trajectory)[0]}


@pytest.mark.parametrize(**table(INVERT))
def test_invert_refuses(bench, changes, words):
    with refused(bench, *words):
        bench.invert(**changes)


@pytest.mark.parametrize(**table(CAPTURE))
def test_capture_refuses(bench, made, changes, words):
    with refused(bench, *words):
        bench.capture(trajectory=made["trajectory"], **changes)


@pytest.mark.parametrize(**table(SAMPLER))
def test_sampler_refuses(bench, made, changes, words):
    with refused(bench, *words):
        bench.sampler(features=made["features"], **changes)


@pytest.mark.parametrize(
    ("captured", "asked", "words"),
    [
        (
            {"feature_steps": 1},
            {"feature_steps": 3},
            ("step 1", "feature of layer 1", "first 1 steps", "Raise feature_end_percent"),
        ),
        ({"attention_steps": 2}, {}, ("step 2", "self-attention of layer 2", "adaptive", "fixed attention")),
        (
            {"attention_steps": 1},
            {"attention_mode": "fixed", "attention_steps": 2},
            ("step 1", "self-attention", "first 1 steps", "Raise attention_end_percent"),
        ),
    ],
    ids=["feature", "adaptive", "fixed"],
)
@pytest.mark.parametrize("storage", ["memory", "recompute"])
def test_sampler_refuses_what_was_not_captured(bench, made, storage, captured, asked, words):
    features = bench.capture(trajectory=made["trajectory"], storage=storage, **captured)[0]
    with refused(bench, *words):
        bench.sampler(features=features, **asked)


def test_sampler_refuses_sites_that_were_not_captured(pack, made):
    sites = pack.core.injection.sites
    plan = pack.core.injection.plan.InjectionPlan(STEPS, 1, 1, feature_sites=(sites.Site("feature", 5),))
    with pytest.raises(ValueError, match=r"feature of layer 5, which was not captured \(captured feature layers: 1\)"):
        made["features"].check_covers(plan)


OTHERS = {
    "sd15": ({"kind": "sd15"}, "TinySD15", "TinySD21"),
    "sdxl": ({"kind": "sdxl"}, "TinySDXL", "TinySD21"),
    "velocity": ({"kind": "small", "velocity": True}, "v-prediction", "eps-prediction"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_trajectory_and_features_of_another_model_are_refused(bench, made, other):
    changes, *words = OTHERS[other]
    model = tiny.make_model(**changes)
    with refused(bench, "trajectory was made with another kind of model", "Wire the same checkpoint", *words):
        bench.capture(model=model, trajectory=made["trajectory"])
    with refused(bench, "features was made with another kind of model", "Wire the same checkpoint", *words):
        bench.sampler(model=model, features=made["features"])


def test_a_model_with_another_noise_schedule_is_refused(bench, pack):
    trajectory = bench.invert(model=tiny.make_model("small", velocity=True))[0]
    model = tiny.make_model("small", velocity=True, zsnr=True)
    with refused(bench, "trajectory was made with another kind of model", "noise"):
        bench.capture(model=model, trajectory=trajectory)


@pytest.mark.parametrize("node", ["invert", "capture", "sampler", "train"])
def test_a_transformer_model_is_refused_by_every_node(bench, made, node):
    changes = {"capture": {"trajectory": made["trajectory"]}, "sampler": {"features": made["features"]}}
    with refused(bench, "model: ", "Stable Diffusion UNet", "got Flux", "another checkpoint"):
        getattr(bench, node)(model=make_flux(), **changes.get(node, {}))


def test_a_model_sampled_in_another_way_is_refused(bench):
    import comfy_extras.nodes_model_advanced as advanced

    (model,) = advanced.ModelSamplingDiscrete().patch(bench.model, "lcm", False)
    with refused(bench, "model: ", "eps or v-prediction", "LCM", "Remove the ModelSampling patch"):
        bench.invert(model=model)


def test_area_conditioning_names_the_input_and_the_remedy(bench, made):
    area = [[STYLE[0][0], {"area": (8, 8, 0, 0), "strength": 1.0}]]
    with refused(bench, "positive, prompt 1: it acts in an area", "Conditioning (Set Mask)"):
        bench.sampler(features=made["features"], positive=area)
