"""Next to what prompts carry: ControlNets, T2I adapters, areas, masks, ranges, hooks."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.lora
import comfy.ops
import comfy.samplers
import comfy.t2i_adapter.adapter
import comfy_extras.nodes_hooks as hooks
import neighbours_inside as neighbours
import pytest
import steps
import tiny
import torch
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from probes import counting, picture_of
from test_neighbours_inside import LEFT, half_and_half
from test_regions import SIZE, Scene, cells

import nodes as host_nodes

HINT = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed, 2)


def control_net():
    """The host's own ControlNet of the tiny UNet, with random weights."""
    shape = {key: value for key, value in tiny.CONFIGS["small"].items() if key not in ("out_channels", "legacy")}
    shape = {**shape, "num_head_channels": 8, "hint_channels": 3, "transformer_depth": [1, 0]}
    net = comfy.cldm.cldm.ControlNet(**shape, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    tiny.fill(net, 71)
    return comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))


class SmallAdapter(comfy.t2i_adapter.adapter.Adapter_light):
    """With a feature for the tiny UNet's second block; the real ones go to every third of twelve."""

    def forward(self, x):
        return {"input": [self.body[0](self.unshuffle(x)), None]}


def t2i_adapter():
    """The host's own T2I adapter, with random weights."""
    net = SmallAdapter(channels=[32], cin=192, nums_rb=1)
    tiny.fill(net, 72)
    return comfy.controlnet.T2IAdapter(net, 3, 8, "nearest-exact", device=torch.device("cpu"))


def old(net, positive, negative):
    """Apply ControlNet (OLD): one prompt, which reaches the negative of its run."""
    return host_nodes.ControlNetApply().apply_controlnet(positive, net, HINT, 0.8)[0], negative


def new(net, positive, negative):
    """Apply ControlNet: both prompts, over a part of the run."""
    return host_nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, net, HINT, 0.8, 0.0, 1.0)


def chained(net, positive, negative):
    """One behind another."""
    return new(net, *new(neighbours.Teller(), positive, negative))


def state(net):
    """All that a control holds, but for what the stand-in writes down for the test."""
    return picture_of({name: value for name, value in vars(net).items() if name != "told"})


NETS = {"ControlNet": control_net, "T2I adapter": t2i_adapter, "Advanced-ControlNet": neighbours.Teller}
WAYS = {"old": old, "new": new, "chained": chained}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NETS)
def test_controls_act_in_every_branch(scene, measured, kind, way):
    """Two styles of the same controlled prompt in two halves: each as alone, and other than without the control."""
    net = NETS[kind]()
    received = state(net)
    plain = scene.positive
    positive, scene.negative = WAYS[way](net, plain, scene.negative)
    scene.prompts = [positive, positive]
    half_and_half(scene, scene.model, measured)
    both = scene.sample(styles=scene.styles(cells(LEFT), cells(1 - LEFT)))
    scene.prompts, scene.negative = [plain, plain], tiny.make_prompt(scene.seed + 2)
    without = scene.sample(styles=scene.styles(cells(LEFT), cells(1 - LEFT)))
    measured("without the control, relative", ((both - without).norm() / both.norm()).item(), at_least=1e-3)
    assert state(net) == received, "a control is copied by the node that applies it, never changed"


@pytest.mark.parametrize("patched", [False, True])
def test_controls_are_told_of_a_plain_run(scene, patched):
    """Positive 0 and negative 1, however many branches there are; what it keeps on itself arrives there."""
    net = neighbours.Teller()
    positive, negative = chained(net, scene.positive, scene.negative)
    scene.positive, scene.negative, scene.prompts = positive, negative, [positive, positive]
    model = neighbours.INSIDE["NAGuidance"](scene.model) if patched else scene.model
    scene.sample(model=model, styles=scene.styles(cells(LEFT), cells(LEFT * 0.5)), outside="regenerate")
    assert all(set(names) <= {0, 1} for names in net.told)
    assert max(map(len, net.told)) == (2 if patched else 6)
    control = positive[0][1]["control"]
    assert control.frames == 1
    assert control.timestep_range is None, "cleaned up after the run"


def hooked(prompt, scene):
    """A LoRA by Create Hook LoRA, on the prompt alone."""
    group = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=0.0)
    keys = comfy.lora.model_lora_keys_unet(scene.model.model, {})
    hook.weights = comfy.lora.load_lora(scene.loras[1], keys)
    hook.need_weight_init = False
    group.add(hook)
    return hooks.SetModelHooksOnCond().attach_hook(prompt, group)[0]


PROMPTS = {
    "ConditioningCombine": lambda p, other, scene: host_nodes.ConditioningCombine().combine(p, other)[0],
    "ConditioningConcat": lambda p, other, scene: host_nodes.ConditioningConcat().concat(p, other)[0],
    "ConditioningAverage": lambda p, other, scene: host_nodes.ConditioningAverage().addWeighted(p, other, 0.4)[0],
    "ConditioningSetMask": lambda p, other, scene: (
        host_nodes.ConditioningSetMask().append(p, cells(LEFT), "default", 1.0)[0] + other
    ),
    "ConditioningSetTimestepRange": lambda p, other, scene: (
        host_nodes.ConditioningSetTimestepRange().set_range(p, 0.0, 0.4)[0]
        + host_nodes.ConditioningSetTimestepRange().set_range(other, 0.4, 1.0)[0]
    ),
    "Create Hook LoRA": lambda p, other, scene: hooked(p, scene),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_of_parts_and_hooks(scene, measured, name):
    """In the sampler's prompt, and in a style's over the whole picture: the same, and other than the plain prompt."""
    plain = scene.positive
    prompt = PROMPTS[name](plain, tiny.make_prompt(scene.seed + 50), scene)
    received = picture_of(prompt)
    scene.positive = prompt
    ours = scene.sample(lora=scene.loras[0])
    styled = scene.sample(styles=steps.chain(scene.pack, {"lora": scene.loras[0], "positive": prompt, "mask": None}))
    measured("as a style of the whole picture, relative", ((styled - ours).norm() / ours.norm()).item(), at_most=1e-4)
    bare = scene.sample(lora=scene.loras[0], feature_steps=0, attention_steps=0, attention_mode="fixed")
    measured("without the injection, relative", ((bare - ours).norm() / ours.norm()).item(), at_least=1e-3)
    scene.positive = plain
    without = scene.sample(lora=scene.loras[0])
    measured("with the plain prompt, relative", ((without - ours).norm() / ours.norm()).item(), at_least=1e-3)
    assert picture_of(prompt) == received


def test_a_prompt_of_part_of_the_run_is_refused(scene):
    scene.positive = host_nodes.ConditioningSetTimestepRange().set_range(scene.positive, 0.0, 0.4)[0]
    with pytest.raises(ValueError, match="positive"):
        scene.sample()


AREAS = {
    "ConditioningSetArea": lambda p: host_nodes.ConditioningSetArea().append(p, 48, 64, 0, 0, 1.0)[0],
    "SetAreaPercentage": lambda p: host_nodes.ConditioningSetAreaPercentage().append(p, 0.5, 0.5, 0.0, 0.0, 1.0)[0],
    "mask bounds": lambda p: host_nodes.ConditioningSetMask().append(p, cells(LEFT), "mask bounds", 1.0)[0],
}


@pytest.mark.parametrize("where", ["positive", "negative", "style"])
@pytest.mark.parametrize("name", AREAS)
def test_areas_are_refused_where_something_is_injected(scene, name, where):
    """They crop the evaluation, and features are of the whole picture."""
    counted, rows = counting(scene.model)
    prompts = {"positive": scene.positive, "negative": scene.negative, "style": scene.prompts[0]}
    prompts[where] = AREAS[name](prompts[where]) + scene.empty
    scene.positive, scene.negative, scene.prompts[0] = prompts["positive"], prompts["negative"], prompts["style"]
    styles = scene.styles(cells(LEFT), cells(1 - LEFT))
    with pytest.raises(ValueError, match=f"{where}.*prompt 1: it acts in an area.*Conditioning .Set Mask."):
        scene.sample(model=counted, styles=styles)
    assert rows == []
    nothing = {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"}
    assert torch.isfinite(scene.sample(model=counted, styles=styles, **nothing)).all()


def test_a_noise_mask_and_differential_diffusion_go_with_the_guider(scene):
    """SamplerCustomAdvanced's own masking: where nothing may change, the latent that was given stays."""
    model = DifferentialDiffusion.execute(scene.model, 1.0).args[0]
    guider, sigmas = steps.guider(scene.pack, model, scene.features, scene.positive, scene.negative)
    plain = steps.guider(scene.pack, scene.model, scene.features, scene.positive, scene.negative)[0]
    mask = torch.linspace(0.0, 1.0, SIZE[1]).expand(1, 1, *SIZE)
    noise, sampler = torch.zeros_like(scene.x_T["samples"]), comfy.samplers.ksampler("euler")
    run = lambda which, where: which.sample(  # noqa: E731
        noise, scene.x_T["samples"], sampler, sigmas, denoise_mask=where, disable_pbar=True
    )
    soft, differential, whole = run(plain, mask), run(guider, mask), run(guider, None)
    assert not torch.allclose(soft, differential)
    assert not torch.allclose(whole, differential)
    torch.testing.assert_close(whole, run(plain, None))
