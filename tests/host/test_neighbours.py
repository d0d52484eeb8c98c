"""Next to other nodes and packs: both effects are there, on every way of ours, or one named refusal."""

from __future__ import annotations

import apply_bench as bench
import neighbours
import pytest
import steps
import tiny
import torch
from probes import counting

LEFT = torch.zeros(1, 128, 128)
LEFT[..., :64] = 1.0


class Scene:
    """SD2.1's topology, one content captured on the plain model, two prompts of styles."""

    def __init__(self, pack, seed) -> None:
        self.pack, self.model = pack, tiny.make_model("sd21", seed=seed)
        self.empty, self.positive, self.negative, self.other = (tiny.make_prompt(seed + i) for i in range(4))
        latent = tiny.make_latent(seed, 16)
        self.trajectory, self.x_T, _ = steps.invert(pack, self.model, latent, self.empty, steps=2)
        self.layers = {"feature_layers": "7", "self_attention_layers": "7-11"}
        self.features = steps.capture(pack, self.model, self.trajectory, self.empty, **self.windows, **self.layers)
        self.styles = steps.chain(
            pack,
            {"positive": self.positive, "mask": LEFT},
            {"positive": self.other},
        )

    windows = {"feature_steps": 2, "attention_steps": 2}

    def way(self, name, model, off=False):
        """The run of one of our ways at the trajectory's own levels. off: with nothing injected."""
        settings = (
            {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"} if off else {"attention_steps": 1}
        )
        prompts = self.positive, self.negative
        given = self.pack, model, self.features
        if name == "sampler":
            return steps.sample(*given, *prompts, **settings)
        if name == "regions":
            return steps.sample(*given, *prompts, styles=self.styles, **settings)
        patched = (
            bench.injected(*given, **settings) if name == "apply" else bench.styled(*given, self.styles, **settings)
        )
        return bench.at_own_levels(patched, self.trajectory, *prompts)


@pytest.fixture(scope="module")
def scene(pack):
    with torch.inference_mode():
        return Scene(pack, 3)


def gap(ours, theirs) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("name", neighbours.MODELS)
def test_a_patched_model(scene, measured, name):
    """Nothing injected, ours is the host's own run; injected, both of our ways agree, and both effects are there."""
    neighbour = neighbours.MODELS[name](scene.model)
    prompts = scene.positive, scene.negative
    theirs = bench.at_own_levels(neighbour, scene.trajectory, *prompts) * scene.trajectory.schedule.level_abar(2) ** 0.5
    measured(
        "nothing injected, against the host's run, relative",
        gap(scene.way("sampler", neighbour, off=True), theirs),
        1e-5,
    )
    ours = scene.way("sampler", neighbour)
    measured("the sampler against Apply Injection, relative", gap(scene.way("apply", neighbour), ours), at_most=2e-5)
    assert gap(ours, scene.way("sampler", scene.model)) > 1e-4, "the neighbour had no effect"
    assert gap(ours, theirs) > 1e-4, "the injection had no effect"


@pytest.mark.parametrize("name", neighbours.INSIDE)
def test_a_patched_model_with_two_regions(scene, measured, name):
    neighbour = neighbours.MODELS[name](scene.model)
    ours = scene.way("regions", neighbour)
    measured("the sampler against Apply Styles, relative", gap(scene.way("styled", neighbour), ours), at_most=2e-5)
    assert gap(ours, scene.way("regions", scene.model)) > 1e-4, "the neighbour had no effect"


def test_patches_in_the_network_act_on_every_branch(scene, measured):
    """NAG takes the first positive and negative chunk of a batch: two equal branches are the one."""
    neighbour = neighbours.MODELS["NAGuidance"](scene.model)
    twins = steps.chain(
        scene.pack,
        {"positive": scene.positive, "mask": LEFT},
        {"positive": scene.positive},
    )
    given = scene.pack, neighbour, scene.features, scene.positive, scene.negative
    two, one = steps.sample(*given, styles=twins), steps.sample(*given)
    measured("two branches of one prompt against one, relative", gap(two, one), at_most=1e-5)
    counted, rows = counting(neighbour)
    steps.sample(scene.pack, counted, *given[2:], styles=twins)
    assert rows == [2, 2] * 2, "as many rows as in one batch"
