"""Blend Conditionings by Mask and Layer-split Conditioning as nodes: in every sampler, what they refuse, clean-up."""

from __future__ import annotations

import comfy.model_management as management
import comfy.model_patcher
import comfy.sd
import pytest
import steps
import tiny
import torch
from node_bench import EMPTY, STYLE, UGLY, make_flux, refused
from probes import state_of

import nodes as host_nodes

pytest_plugins = ("guards",)

LEFT = torch.zeros(1, 64, 64)
LEFT[..., :32] = 1.0
ONES = torch.ones(1, 64, 64)


def regional(pack, **fields):
    return steps.chain(pack, {"positive": tiny.make_prompt(21, 154), "mask": ONES, **fields})


def blend(pack, model, styles, **widgets):
    node = pack.prompts.blend.BlendConditionings
    return node.execute(model=model, styles=styles, **{"mask_grow": 0, "mask_feather": 0, **widgets})


def split(pack, model, layers="as DEADiff", **wires):
    chosen = layers if isinstance(layers, dict) else {"layers": layers}
    return pack.prompts.layer_split.LayerSplitConditioning.execute(model=model, layers=chosen, **wires)


def words(out):
    return out.ui["text"][0]


def ksampler(model, positive=STYLE, negative=UGLY, cfg=2.0, batch=1):
    latent = tiny.make_latent(seed=5, size=8, batch=batch)
    out = host_nodes.common_ksampler(model, 7, 2, cfg, "euler", "normal", positive, negative, latent)
    return out[0]["samples"]


def largest(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("lora", ["none", "in the weights", "bypass"])
def test_in_ksampler_a_mask_of_ones_is_that_prompt_alone(pack, bench, measured, lora, cfg):
    """Also where another node's LoRA changes the projections, in a batch of two pictures."""
    model = tiny.make_model("small") if lora == "bypass" else bench.model  # the host leaves forwards of its own behind
    if lora != "none":
        load = comfy.sd.load_lora_for_models if lora == "in the weights" else comfy.sd.load_bypass_lora_for_models
        model, _ = load(model, None, steps.random_lora(pack, model, 3, size=0.5), 1.0, 0.0)
    styles = regional(pack)
    blended = blend(pack, model, styles).args[0]
    ours, alone = ksampler(blended, cfg=cfg, batch=2), ksampler(model, styles[0].positive, cfg=cfg, batch=2)
    measured("KSampler against that prompt alone", largest(ours, alone), at_most=5e-6)
    assert not torch.equal(ours, ksampler(model, cfg=cfg, batch=2))
    assert torch.equal(ksampler(blend(pack, model, regional(pack, mask=0 * ONES)).args[0]), ksampler(model))


@pytest.mark.parametrize("where", ["alone", "with LoRA", "in regions", "in the guider"])
def test_our_injection_acts_on_each_prompt(pack, bench, measured, where):
    """Cross-attention injected and a LoRA in the rows: a mask of ones is the sampler with that prompt alone."""
    trajectory = bench.invert()[0]
    features = bench.capture(trajectory, cross_attention_layers="2-3", precision="fp32")[0]
    styles, lora = regional(pack), steps.random_lora(pack, bench.model, 4, size=0.3)
    settings = {"alone": {}, "with LoRA": {"lora": lora}}.get(where, {})
    target = styles[0].positive

    def sampled(model, positive):
        own = dict(settings)
        if where == "in regions":
            own["styles"] = steps.chain(
                pack, {"positive": positive, "mask": LEFT, "lora": lora}, {"positive": positive}
            )
        if where == "in the guider":
            from comfy_extras import nodes_custom_sampler as custom

            guider, sigmas = steps.guider(pack, model, features, positive, UGLY, lora=lora)
            sampler, noise = custom.KSamplerSelect.execute("euler").args[0], custom.DisableNoise.execute().args[0]
            start = pack.host.sampling.stylize.choose_start(model, trajectory, None)
            out = custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, {"samples": start})
            return out.args[0]["samples"]
        return steps.sample(pack, model, features, positive, UGLY, **own)

    blended = blend(pack, bench.model, styles).args[0]
    ours, alone = sampled(blended, STYLE), sampled(bench.model, target)
    measured("against that prompt alone", largest(ours, alone), at_most=5e-6)
    assert not torch.equal(ours, sampled(bench.model, STYLE))


def test_no_mask_takes_the_rest_and_half_is_between(pack, bench):
    """A style without a mask takes what the others leave, so that the sampler's own prompt acts nowhere."""
    both = steps.chain(pack, {"positive": EMPTY, "mask": LEFT}, {"positive": tiny.make_prompt(21)})
    out = blend(pack, bench.model, both)
    assert torch.equal(ksampler(out.args[0], STYLE, cfg=1.0), ksampler(out.args[0], EMPTY, cfg=1.0))
    assert words(out).splitlines() == [
        "style 1: 50.0 % of the picture",
        "style 2: 50.0 % of the picture (no mask: the rest)",
        "the sampler's own prompt: 0.0 %",
    ]
    grown = words(blend(pack, bench.model, both, mask_grow=16))
    assert "style 1: 75.0 %" in grown


def test_controlnet_areas_and_more_are_refused_by_name(pack, bench):
    lora = steps.random_lora(pack, bench.model, 1)
    cases = {
        "style 1 'ink' carries lora": regional(pack, name="ink", lora=lora),
        "style 1 carries injection": regional(pack, injection=steps.injection(pack)),
        "positive of style 1 carries a ControlNet": regional(pack, positive=with_option(control=object())),
        "positive of style 1: a style's prompt acts on the whole picture": regional(
            pack, positive=with_option(area=(8, 8, 0, 0))
        ),
        "positive of style 1: a style's prompt acts in the whole run": regional(
            pack, positive=with_option(start_percent=0.5)
        ),
        "positive of style 1: one prompt is expected, got 2": regional(pack, positive=[*EMPTY, *STYLE]),
        "positive of style 1: this model takes embeddings of width 32": regional(
            pack, positive=[[torch.zeros(1, 77, 48), {}]]
        ),
        "mask of style 1: Blend Conditionings by Mask takes one mask for all frames, got 3": regional(
            pack, mask=torch.ones(3, 8, 8)
        ),
        "styles: a chain of at least one": (),
    }
    for said, styles in cases.items():
        with refused(bench, said):
            blend(pack, bench.model, styles)
    with refused(bench, "mask_feather must be a number in 0..512"):
        blend(pack, bench.model, regional(pack), mask_feather=513)
    with refused(bench, "DiffStyler needs a Stable Diffusion UNet"):
        blend(pack, make_flux(), regional(pack))


def with_option(**options):
    return [[tiny.make_prompt(21)[0][0], options]]


def test_two_nodes_that_choose_the_prompt_are_refused(pack, bench):
    blended = blend(pack, bench.model, regional(pack)).args[0]
    custom = {"layers": "custom", "coarse_layers": "0-1"}
    with refused(bench, "carries Blend Conditionings by Mask already", "Layer-split Conditioning"):
        split(pack, blended, custom, style=EMPTY)
    parted = split(pack, bench.model, custom, style=EMPTY).args[0]
    with refused(bench, "carries Layer-split Conditioning already", "Blend Conditionings by Mask"):
        blend(pack, parted, regional(pack))


def test_layer_split_says_which_layers_and_refuses_what_is_none(pack, bench):
    model = tiny.make_model("sdxl")
    style = tiny.make_prompt(21, sdxl=True)
    out = split(pack, model, style=style)
    assert words(out).splitlines() == [
        "semantic: layers 2-6 of 11 (1/4 of the latent), the sampler's own prompt",
        "style: layers 0-1,7-10 of 11 (1/2, 1/4 of the latent)",
        "note: the pooled output is the sampler's own prompt's; of the prompts here only the tokens act",
    ]
    assert "layers 2-7 of 11" in words(split(pack, model, "coarse grids", style=style))
    custom = {"layers": "custom", "coarse_layers": "0,2"}
    assert "layers 0,2 of" in words(split(pack, bench.model, custom, semantic=EMPTY))
    with refused(bench, "semantic and style: neither was given"):
        split(pack, bench.model, custom)
    with refused(bench, "coarse_layers: cross-attention layers 40 do not exist", "it has 0-"):
        split(pack, bench.model, {"layers": "custom", "coarse_layers": "40"}, style=EMPTY)
    with refused(bench, "coarse_layers must be written like"):
        split(pack, bench.model, {"layers": "custom", "coarse_layers": "a"}, style=EMPTY)
    with refused(bench, "layers must be one of"):
        pack.prompts.layer_split.LayerSplitConditioning.execute(model=bench.model, style=EMPTY)
    with refused(bench, "Choose 'custom' and name layers"):
        split(pack, bench.model, style=EMPTY)  # the small model has no layer at 1/4


def test_all_layers_in_one_prompt_is_that_prompt_alone(pack, bench, measured):
    prompt = tiny.make_prompt(21, 93)
    everything = {"layers": "custom", "coarse_layers": ""}
    model = split(pack, bench.model, everything, style=prompt).args[0]
    measured("against that prompt alone", largest(ksampler(model), ksampler(bench.model, prompt)), at_most=5e-6)


@pytest.mark.parametrize("ending", ["completes", "error", "interrupt"])
def test_the_model_is_as_before_after_every_run(pack, bench, ending):
    """Removed or bypassed, the plain MODEL is back; the same request gives the same once more."""
    before = state_of(bench.model)
    styles = regional(pack, mask=LEFT)
    blended = blend(pack, bench.model, styles).args[0]
    first = ksampler(blended)
    if ending != "completes":
        start = bench.evaluations

        def stop(count):
            if count == start + 1 and ending == "error":
                raise RuntimeError("the UNet broke")
            if count == start + 1:
                management.interrupt_current_processing(True)

        bench.at_evaluation = stop
        with pytest.raises((RuntimeError, management.InterruptProcessingException)):
            ksampler(blended)
        bench.at_evaluation = lambda count: None
    assert torch.equal(first, ksampler(blended))
    assert torch.equal(first, ksampler(blend(pack, bench.model, styles).args[0]))
    assert state_of(bench.model) == before


def test_in_sampler_custom_advanced_with_the_stock_guider(pack, bench, measured):
    from comfy_extras import nodes_custom_sampler as custom

    styles = regional(pack, mask=LEFT)

    def sampled(model):
        guider = custom.CFGGuider.execute(model, STYLE, UGLY, 2.0).args[0]
        sigmas = custom.BasicScheduler.execute(model, "normal", 2, 1.0).args[0]
        noise, sampler = custom.RandomNoise.execute(7).args[0], custom.KSamplerSelect.execute("euler").args[0]
        latent = tiny.make_latent(seed=5, size=8)
        return custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]["samples"]

    blended = blend(pack, bench.model, styles).args[0]
    measured("against KSampler", largest(sampled(blended), ksampler(blended)), at_most=1e-6)
    assert not torch.equal(sampled(blended), sampled(bench.model))


def test_an_area_in_the_samplers_prompt_is_refused_and_a_mask_is_not(pack, bench):
    """An area is evaluated as a crop, which the masks do not lie over."""
    blended = blend(pack, bench.model, regional(pack, mask=LEFT)).args[0]
    with pytest.raises(ValueError, match="masks lie over the whole picture"):
        ksampler(blended, positive=[[STYLE[0][0], {"area": (8, 4, 0, 0), "strength": 1.0}], STYLE[0]])
    masked = [[STYLE[0][0], {"mask": LEFT, "mask_strength": 1.0}], STYLE[0]]
    assert torch.isfinite(ksampler(blended, positive=masked)).all()


def test_short_memory_splits_the_batch_with_the_same_result(pack, bench, measured, monkeypatch):
    blended = blend(pack, bench.model, regional(pack, mask=LEFT)).args[0]
    together = ksampler(blended)
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0)
    measured("split against batched", largest(ksampler(blended), together), at_most=1e-5)
