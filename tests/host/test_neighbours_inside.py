"""Next to patches inside the UNet, and to what compiles it: in every branch as alone, recomputed as stored."""

from __future__ import annotations

import apply_bench
import comfy_extras.nodes_easycache as easycache
import neighbours_inside as neighbours
import pytest
import steps
import tiny
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from node_bench import EMPTY, refused, refused_by_every_node
from probes import state_of
from test_regions import SIZE, Scene, cells

pytest_plugins = ("guards",)

LEFT = torch.zeros(SIZE)
LEFT[:, :6] = 1.0


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed, 2)


def gap(ours, theirs) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def captured(scene, model, **changes):
    return steps.capture(scene.pack, model, scene.trajectory, scene.empty, **changes)


def sample(scene, model, features, **changes):
    return steps.sample(scene.pack, model, features, scene.positive, scene.negative, lora=scene.loras[0], **changes)


def held(model):
    """What a run could leave on a MODEL. The host merges a MODEL's weights at its first run, and keeps them so."""
    return {key: value for key, value in state_of(model).items() if key != "weights" or not model.patches}


@pytest.mark.parametrize("name", neighbours.ALL)
def test_both_effects_on_every_way(scene, measured, name):
    """Stored against recomputed, and the sampler node against Apply Injection under the host's euler."""
    model = neighbours.ALL[name](scene.model)
    before = held(model)
    features, again = captured(scene, model), captured(scene, model, storage="recompute")
    both = sample(scene, model, features)
    measured("recomputed against stored, relative", gap(sample(scene, model, again), both), at_most=1e-4)
    measured("without the neighbour, relative", gap(sample(scene, scene.model, scene.features), both), at_least=1e-4)
    nothing = sample(scene, model, features, feature_steps=0, attention_steps=0, attention_mode="fixed")
    measured("without the injection, relative", gap(nothing, both), at_least=1e-3)
    bare = steps.sample(scene.pack, model, features, scene.positive, scene.negative)
    measured("without the LoRA, relative", gap(bare, both), at_least=1e-3)
    applied = apply_bench.injected(scene.pack, model, features)
    theirs = apply_bench.at_own_levels(applied, scene.trajectory, scene.positive, scene.negative)
    measured("the host's euler on Apply Injection, relative", gap(theirs, bare), at_most=1e-4)
    assert held(model) == before


def half_and_half(scene, model, measured, at_most=1e-4):
    """Two styles in two halves: in each, what that style alone predicts with the neighbour (eq. 8)."""
    features = captured(scene, model)
    sigma = scene.trajectory.schedule.sigma(scene.trajectory.schedule.timesteps[1])
    x = scene.randn(1, 4, *SIZE) * (1 + sigma**2) ** 0.5
    make = lambda positive, **changes: steps.guider(scene.pack, model, features, positive, scene.negative, **changes)[0]  # noqa: E731
    styles = scene.styles(cells(LEFT), cells(1 - LEFT))
    ours = steps.predicted(scene.pack, make(scene.positive, styles=styles), x, sigma)
    for i, half in enumerate((LEFT, 1 - LEFT)):
        alone = steps.predicted(scene.pack, make(scene.prompts[i], lora=scene.loras[i]), x, sigma)
        off = ((ours - alone) * half).norm() / (alone * half).norm()
        measured(f"half {i + 1} against its style alone, relative", off.item(), at_most=at_most)


@pytest.mark.parametrize("name", [*neighbours.INSIDE, *neighbours.AROUND])
def test_every_branch_is_patched_as_alone(scene, measured, name):
    half_and_half(scene, neighbours.ALL[name](scene.model), measured)


def test_chunks_of_a_branch_stand_by_themselves(scene):
    """NAG and its kin look for the first positive and negative chunk: each branch comes with its own two alone."""
    seen = []

    def look(out, options):
        seen.append(tuple(sorted(options["cond_or_uncond"])))
        return out

    model = scene.model.clone()
    model.set_model_attn2_output_patch(look)
    scene.sample(model=model, styles=scene.styles(cells(LEFT), cells(1 - LEFT)))
    assert set(seen) == {(0, 1)}


class Compiled:
    """Ways in which MODELs come compiled. No graph is made before the first call."""

    @staticmethod
    def by_the_host(model):
        compiled = model.clone()
        set_torch_compile_wrapper(compiled, backend="eager")
        return compiled

    @staticmethod
    def a_layer(model):
        compiled = model.clone()
        block = model.get_model_object("diffusion_model.output_blocks.1")
        compiled.add_object_patch("diffusion_model.output_blocks.1", torch.compile(block, backend="eager"))
        return compiled

    @staticmethod
    def the_unet(model):
        compiled = model.clone()
        unet = model.get_model_object("diffusion_model")
        compiled.add_object_patch("diffusion_model", torch.compile(unet, backend="eager"))
        return compiled


@pytest.mark.parametrize("how", ["by_the_host", "a_layer", "the_unet"])
def test_a_compiled_model_is_refused(pack, bench, how):
    trajectory = bench.invert()[0]
    features = bench.capture(trajectory)[0]
    model = getattr(Compiled, how)(bench.model)
    words = "model carries torch.compile", "stale", "from before TorchCompileModel"
    refused_by_every_node(pack, bench, model, trajectory, features, *words)
    styles = steps.chain(pack, {"positive": EMPTY, "mask": None})
    with refused(bench, *words):
        pack.prompts.blend.BlendConditionings.execute(model=model, styles=styles, mask_grow=0, mask_feather=0)


@pytest.mark.parametrize("ours", ["Apply Injection", "Blend Conditionings by Mask"])
def test_compiled_behind_our_patch_it_is_refused_at_the_sampler(pack, bench, ours):
    if ours == "Apply Injection":
        model = apply_bench.injected(pack, bench.model, bench.capture()[0])
    else:
        node = pack.prompts.blend.BlendConditionings
        styles = steps.chain(pack, {"positive": EMPTY, "mask": None})
        model = node.execute(model=bench.model, styles=styles, mask_grow=0, mask_feather=0).args[0]
    latent = tiny.make_latent()
    with refused(bench, "model of the sampler carries torch.compile", "stale"):
        apply_bench.ksampler(Compiled.by_the_host(model), EMPTY, EMPTY, latent, count=2)


def test_a_cache_behind_our_patch_is_refused_at_the_sampler(pack, bench):
    model = apply_bench.injected(pack, bench.model, bench.capture()[0])
    model = easycache.EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False).args[0]
    with refused(bench, "model of the sampler carries EasyCache"):
        apply_bench.ksampler(model, EMPTY, EMPTY, tiny.make_latent(), count=2)


def test_weights_that_are_wrapped_are_other_weights(pack, scene):
    """By what comes out of the wrapper, whichever function it is: the same in another process."""
    fingerprint = pack.host.identity.fingerprint
    key = "diffusion_model.output_blocks.1.0.in_layers.2.weight"
    wrapped = []
    for gain in (1.5, 1.5, 2.0):
        model = scene.model.clone()
        model.add_weight_wrapper(key, lambda weight, gain=gain: weight.mul_(gain))
        wrapped.append(model)
    before = state_of(scene.model)
    first, same, other = (fingerprint(model) for model in wrapped)
    assert first == same
    assert len({first, other, fingerprint(scene.model)}) == 3
    assert state_of(scene.model) == before
    features = captured(scene, scene.model, storage="recompute")
    with pytest.raises(ValueError, match="storage is 'recompute'"):
        sample(scene, wrapped[0], features)
