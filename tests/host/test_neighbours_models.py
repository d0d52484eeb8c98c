"""Next to models and prompts of other kinds: GLIGEN, unCLIP, InstructPix2Pix, other precision, CLIP skip, windows."""

from __future__ import annotations

import apply_bench
import comfy_extras.nodes_context_windows as windows
import neighbours_models
import pytest
import steps
import tiny
import torch
from node_bench import EMPTY, refused, refused_by_every_node
from probes import picture_of, state_of
from test_neighbours_inside import captured, gap, half_and_half, sample
from test_regions import SIZE, Scene

pytest_plugins = ("guards",)

TOLERANCE = {"ModelComputeDtype": 3e-2}
"""Of fp16, whose numbers have 11 bits; all others are fp32."""


class Told(Scene):
    """``Scene`` with another model, and prompts as its nodes make them."""

    def __init__(self, pack, seed, kind) -> None:
        self.pack, self.seed, self.kind, self.model = pack, seed, kind, kind.model
        self.generator = torch.Generator().manual_seed(seed)
        self.latent = {"samples": self.randn(1, 4, *SIZE) * 0.8 / 0.18215}
        self.loras = [steps.random_lora(pack, self.model, seed + 10 + i, size=0.3) for i in range(2)]
        self.empty, self.positive, self.negative, *self.prompts = (kind.told(i) for i in range(5))
        self.trajectory, self.x_T, _ = steps.invert(pack, self.model, self.latent, self.empty)
        self.features = steps.capture(pack, self.model, self.trajectory, self.empty)


def without(scene):
    """The same run without the neighbour."""
    kind, model = scene.kind, tiny.make_model("small", seed=scene.seed)
    if kind.model.object_patches:
        return sample(scene, model, captured(scene, model))
    scene.positive, told = kind.plain(1), scene.positive
    try:
        return sample(scene, scene.model, scene.features)
    finally:
        scene.positive = told


@pytest.mark.parametrize("name", neighbours_models.KINDS)
def test_both_effects_are_there(pack, seed, measured, name):
    """Stored against recomputed, the sampler against Apply Injection, two styles each as alone; nothing changed."""
    scene, bound = Told(pack, seed, neighbours_models.KINDS[name](seed)), TOLERANCE.get(name, 1e-4)
    received, model = picture_of([scene.positive, *scene.prompts]), state_of(scene.model)
    both = sample(scene, scene.model, scene.features)
    again = sample(scene, scene.model, captured(scene, scene.model, storage="recompute"))
    measured("recomputed against stored, relative", gap(again, both), at_most=bound)
    measured("without the neighbour, relative", gap(without(scene), both), at_least=1e-4)
    nothing = sample(scene, scene.model, scene.features, feature_steps=0, attention_steps=0, attention_mode="fixed")
    measured("without the injection, relative", gap(nothing, both), at_least=max(1e-3, 2 * bound))
    half_and_half(scene, scene.model, measured, at_most=bound)
    assert picture_of([scene.positive, *scene.prompts]) == received
    assert state_of(scene.model) == model


@pytest.mark.parametrize("name", sorted(neighbours_models.KINDS.keys() - {"unCLIP"}))
def test_behind_apply_injection(pack, seed, measured, name):
    """unCLIP adds noise by the sampler's seed to what it tells, so it is not the same there."""
    scene, bound = Told(pack, seed, neighbours_models.KINDS[name](seed)), TOLERANCE.get(name, 1e-4)
    bare = steps.sample(pack, scene.model, scene.features, scene.positive, scene.negative)
    applied = apply_bench.injected(pack, scene.model, scene.features)
    theirs = apply_bench.at_own_levels(applied, scene.trajectory, scene.positive, scene.negative)
    measured("the host's euler on Apply Injection, relative", gap(theirs, bare), at_most=bound)


def windowed(model):
    node = windows.ContextWindowsManualNode
    return node.execute(model, 2, 1, "standard_static", 1, False, "pyramid", 0, False).args[0]


def test_context_windows_are_refused(pack, bench):
    """By every node, and at the sampler where they come behind Apply Injection."""
    trajectory = bench.invert()[0]
    features = bench.capture(trajectory)[0]
    model = windowed(bench.model)
    words = "model carries Context Windows", "frames_at_once", "from before that node"
    refused_by_every_node(pack, bench, model, trajectory, features, *words)
    behind = windowed(apply_bench.injected(pack, bench.model, features))
    with refused(bench, "model of the sampler carries Context Windows"):
        apply_bench.ksampler(behind, EMPTY, EMPTY, tiny.make_latent(), count=2)
