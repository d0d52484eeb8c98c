"""What each branch is predicted with: its own prompts and settings, nothing of its neighbours, nothing kept."""

from __future__ import annotations

import math

import comfy.controlnet
import comfy.model_management
import pytest
import steps
import torch
from probes import Ending, counting, lora_matrices
from test_regions import NOTHING, SIZE, Scene

import nodes as host_nodes

LEFT = torch.zeros(1, 64, 96)
LEFT[..., :48] = 1.0
ALL = torch.ones(1, 64, 96)


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed, 2)


class Push(comfy.controlnet.ControlBase):
    """A ControlNet whose only network is a constant: it moves the UNet's middle, and counts its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        self.rows.append(len(x_noisy))
        middle = torch.full((len(x_noisy), 32, SIZE[0] // 2, SIZE[1] // 2), 3.0)
        return self.control_merge({"middle": [middle]}, None, x_noisy.dtype)

    def copy(self):
        copied = Push()
        self.copy_to(copied)
        copied.rows = self.rows
        return copied


def applied(control, prompt):
    """The host's old 'Apply ControlNet', which also reaches the negative of its run."""
    return host_nodes.ControlNetApply().apply_controlnet(prompt, control, torch.rand(1, 64, 96, 3), 1.0)[0]


def test_a_style_without_a_lora_is_a_region_of_the_base_model(scene):
    everywhere = steps.chain(scene.pack, {"positive": scene.positive, "mask": ALL})
    assert torch.equal(scene.sample(styles=everywhere), scene.sample())
    rest = [{"lora": scene.loras[0], "positive": scene.prompts[0], "mask": LEFT}, {"positive": scene.positive}]
    injected = scene.sample(styles=steps.chain(scene.pack, *rest))
    regenerated = scene.sample(styles=steps.chain(scene.pack, rest[0]), outside="regenerate")
    assert not torch.equal(injected, regenerated), "the rest is injected, eq. 8's base term is not"
    bare = steps.injection(scene.pack, 0.0, 0.0)
    chain = steps.chain(scene.pack, rest[0], {**rest[1], "injection": bare})
    assert torch.equal(scene.sample(styles=chain), regenerated)


def test_wired_settings_are_those_of_the_widgets(scene):
    wired = steps.injection(scene.pack, 0.75, 0.25, attention_mode="fixed", blend="map")
    typed = {"feature_steps": 3, "attention_steps": 1, "attention_mode": "fixed", "blend": "map"}
    theirs = scene.sample(lora=scene.loras[0], **typed)
    assert torch.equal(scene.sample(lora=scene.loras[0], injection=wired), theirs)
    assert torch.equal(scene.sample(lora=scene.loras[0], injection=wired, preset="take more style"), theirs)
    own = {"lora": scene.loras[0], "positive": scene.positive, "mask": ALL, "injection": wired}
    assert torch.equal(scene.sample(styles=steps.chain(scene.pack, own), **NOTHING), theirs)


def test_a_preset_of_the_node_is_its_values(scene):
    layers = {"feature_layers": "all", "self_attention_layers": "all", "cross_attention_layers": "all"}
    out = scene.pack.pipeline.injection_settings.InjectionSettingsNode.execute(
        preset={"preset": "keep more content"}, **layers
    )
    assert out.args[0] == scene.pack.core.injection.settings.PRESETS["keep more content"]
    (text,) = out.ui["text"]
    assert text == "preset keep more content: features 80 %, attention 80 % of the run, adaptive, qk"


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"feature_layers": "", "self_attention_layers": "", "cross_attention_layers": ""}, "nothing"),
        ({"feature_layers": "", "cross_attention_layers": ""}, "attention"),
        ({"self_attention_layers": "2"}, "layer 2"),
    ],
)
def test_sites_to_use_of_those_captured(scene, chosen, left):
    kinds = {"nothing": ("", ""), "attention": ("", "2-3"), "layer 2": ("1", "2")}[left]
    ours = scene.sample(lora=scene.loras[0], injection=steps.injection(scene.pack, **chosen))
    if left == "nothing":
        assert torch.equal(ours, scene.sample(lora=scene.loras[0], **NOTHING))
        return
    scene.features = steps.capture(
        scene.pack, scene.model, scene.trajectory, scene.empty, feature_layers=kinds[0], self_attention_layers=kinds[1]
    )
    assert torch.equal(ours, scene.sample(lora=scene.loras[0]))


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"feature_layers": "1,3"}, "injection: feature layers 3 are to be injected.*captured feature layers: 1"),
        (
            {"self_attention_layers": "0-3"},
            "injection: self-attention layers 0-1 .*captured self-attention layers: 2-3",
        ),
    ],
)
def test_sites_that_were_not_captured_are_refused(scene, chosen, words):
    settings = steps.injection(scene.pack, **chosen)
    model, rows = counting(scene.model)
    with pytest.raises(ValueError, match=words):
        scene.sample(model, injection=settings)
    own = {"lora": scene.loras[0], "positive": scene.positive, "mask": ALL, "injection": settings}
    with pytest.raises(ValueError, match=f"style 1: {words}"):
        scene.sample(model, styles=steps.chain(scene.pack, own))
    assert rows == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_end": math.nan}, "feature_end_percent must be a share of the run in 0..1.*got nan"),
        ({"attention_end": 60.0}, "attention_end_percent must be a share of the run in 0..1.*got 60"),
        ({"preset": {"preset": "paper"}}, "preset must be one of.*got 'paper'"),
        ({"preset": None}, "preset must be one of.*got None"),
        ({"attention_mode": "soft"}, "attention_mode must be one of"),
        ({"blend": "v"}, "blend must be one of"),
        ({"feature_layers": "4;5"}, "feature_layers must be written like"),
    ],
)
def test_injection_settings_refuses(pack, changes, words):
    with pytest.raises(ValueError, match=words):
        steps.injection(pack, **changes)


def test_a_controlnet_of_the_positive_stays_with_it(scene):
    """It moves the run's positive and negative; the content's own row and a style's own prompts are not touched."""
    control = Push()
    positive = applied(control, scene.positive)
    plain = scene.sample(lora=scene.loras[0])
    moved = {}
    for storage in ("memory", "recompute"):
        scene.features = steps.capture(scene.pack, scene.model, scene.trajectory, scene.empty, storage=storage)
        moved[storage] = steps.sample(
            scene.pack, scene.model, scene.features, positive, scene.negative, lora=scene.loras[0]
        )
    assert (moved["memory"] - plain).abs().max() > 1e-3, "the control acts"
    assert torch.equal(moved["memory"], moved["recompute"]), "the content's row is not controlled"
    styles = scene.styles(ALL)
    expected = scene.sample(styles=styles)
    control.rows.clear()
    mine = steps.sample(scene.pack, scene.model, scene.features, positive, scene.negative, styles=styles)
    assert torch.equal(mine, expected), "the style has a prompt of its own, without a control"
    assert control.rows == []


def test_a_controlnet_of_a_style_reaches_its_own_negative_only(scene):
    control = Push()
    masks = (LEFT, 1 - LEFT)
    prompts = (applied(control, scene.prompts[0]), scene.prompts[1])
    rows = zip(scene.loras, prompts, masks, strict=True)
    styles = steps.chain(scene.pack, *({"lora": o, "positive": p, "mask": m} for o, p, m in rows))
    scene.sample(styles=styles)
    assert sum(control.rows) == 4 * 2, "positive and negative of one style, at each of four steps"
    control.rows.clear()
    scene.sample(styles=styles, cfg=1.0)
    assert sum(control.rows) == 4


@pytest.mark.parametrize(("how", "at"), [("completes", 0), ("error", 3), ("interrupt", 3)])
def test_a_guider_keeps_nothing_on_the_device_after_a_run(pack, scene, monkeypatch, how, at):
    scene.features = steps.capture(
        pack, scene.model, scene.trajectory, scene.empty, storage="recompute", lora=scene.loras[1]
    )
    guider, sigmas = steps.guider(
        pack, scene.model, scene.features, scene.positive, scene.negative, lora=scene.loras[0]
    )
    ending, x = Ending(monkeypatch), scene.x_T["samples"]
    seen = []
    ending.plan(how, at)

    def run():
        sampler = pack.host.sampling.runs.RunSampler(
            lambda denoise, x, on_step: (
                denoise(x, sigmas[:1]),
                seen.append((bool(guider._run._held), len(lora_matrices(pack)))),
                denoise(x, sigmas[1:2]),
            )[2]
        )
        guider.sample(torch.zeros_like(x), x, sampler, sigmas, disable_pbar=True)

    if how == "completes":
        run()
    else:
        stop = RuntimeError if how == "error" else comfy.model_management.InterruptProcessingException
        with pytest.raises(stop):
            run()
    assert seen == [(True, 1)], "while it runs, it holds the recomputed step and the LoRAs' matrices"
    assert guider._run is None
    assert not lora_matrices(pack)


@pytest.mark.parametrize("name", ["cfg", "lora_strength"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused_by_name(scene, name, value):
    model, rows = counting(scene.model)
    with pytest.raises(ValueError, match=name):
        scene.sample(model, lora=scene.loras[0], **{name: value})
    with pytest.raises(ValueError, match=name):
        scene.guider(model, lora=scene.loras[0], **{name: value})
    assert rows == []


def test_a_styles_strength_is_a_number(scene):
    with pytest.raises(ValueError, match="strength of style 2 must be a number"):
        steps.chain(
            scene.pack, {"positive": scene.positive, "mask": LEFT}, {"positive": scene.positive, "strength": math.nan}
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_grow": 10**6}, "mask_grow must be a number in -512..512"),
        ({"mask_feather": -1}, "mask_feather must be a number in 0..512"),
        ({"styles": ()}, "styles: a chain of at least one Regional Style"),
    ],
)
def test_regions_that_are_none_are_refused_by_name(scene, changes, words):
    wired = {"styles": scene.styles(LEFT), **changes}
    model, rows = counting(scene.model)
    for run in (scene.sample, scene.guider):
        with pytest.raises(ValueError, match=words):
            run(model, **wired)
    assert rows == []


def test_prompts_that_are_none_are_refused_by_name(scene):
    bad = [[scene.positive[0][0] * math.nan, {}]]
    model, rows = counting(scene.model)
    for changes in ({"positive": bad}, {"negative": bad}, {"positive": []}, {"negative": []}):
        wired = {"positive": scene.positive, "negative": scene.negative, **changes}
        with pytest.raises(ValueError, match=f"^{next(iter(changes))}"):
            steps.sample(scene.pack, model, scene.features, **wired)
        with pytest.raises(ValueError, match=f"^{next(iter(changes))}"):
            steps.guider(scene.pack, model, scene.features, **wired)
    with pytest.raises(ValueError, match=r"^positive of style 1"):
        scene.sample(model, styles=steps.chain(scene.pack, {"positive": bad, "mask": LEFT}))
    assert rows == []


def test_a_prediction_that_is_not_finite_ends_the_run_with_words(scene):
    """Weights of half precision overflow like this; the picture was NaN and the node green."""
    broken = scene.model.clone()
    calls = []

    def overflow(executor, *args, **kwargs):
        calls.append(1)
        return executor(*args, **kwargs) * (math.inf if len(calls) == 2 else 1.0)

    broken.add_wrapper_with_key("diffusion_model", "overflow", overflow)
    with pytest.raises(ValueError, match=r"model: its prediction is no longer finite .*step 1 of 4.*--force-fp32"):
        scene.sample(broken)
    assert len(calls) == 2


def test_what_is_injected_stands_on_the_node(scene):
    node = scene.pack.pipeline.sampler.InjectedLoRASampler
    out = node.execute(
        model=scene.model, features=scene.features, positive=scene.positive, negative=scene.negative, cfg=1.0,
        **steps.custom(steps.STEPS, {**steps.INJECTION, "feature_steps": 3}),
    )  # fmt: skip
    text = "\n".join(out.ui["text"])
    assert text.startswith("no style LoRA: base model\n")
    assert "custom: features 75 %, attention 50 % of the run, adaptive, qk; 3 and 2 of 4 steps" in text
