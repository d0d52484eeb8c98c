"""Styles whose LoRAs need merged weights: whole runs against Load LoRA, side by side, in turns; nothing stays."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.sd
import pytest
import steps
import tiny
import torch

OFF = {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"}


@pytest.fixture
def run(pack, seed):
    return Run(pack, seed)


class Run:
    """A 'small' model with features, and LoRAs of several kinds on all of its attentions."""

    def __init__(self, pack, seed) -> None:
        self.pack, self.seed = pack, seed
        self.model, self.prompt, self.negative = (
            tiny.make_model("small", seed=seed),
            *map(tiny.make_prompt, (seed, seed + 1)),
        )
        self.features = self.features_of(self.model)

    def features_of(self, model):
        trajectory, _, _ = steps.invert(self.pack, model, tiny.make_latent(self.seed, 8), self.prompt)
        return steps.capture(self.pack, model, trajectory, self.prompt)

    def sample(self, model=None, features=None, **changes):
        model, features = model or self.model, features or self.features
        return steps.sample(self.pack, model, features, self.prompt, self.negative, **changes)

    def loaded(self, lora, strength=1.0, model=None):
        return comfy.sd.load_lora_for_models(model or self.model, None, lora, strength, 0.0)[0]

    def gap(self, a, b) -> float:
        return (a - b).abs().max().item() * self.model.model.process_latent_in(torch.ones(1)).item()

    def dora(self, seed, size=0.3):
        lora, generator = steps.random_lora(self.pack, self.model, seed, size=size), torch.Generator().manual_seed(seed)
        names = [key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")]
        rows = {name: len(lora[f"{name}.lora_up.weight"]) for name in names}
        return {**lora, **{f"{n}.dora_scale": 0.8 + 0.4 * torch.rand(rows[n], 1, generator=generator) for n in names}}

    def oft(self, seed):
        generator = torch.Generator().manual_seed(seed)
        names = [
            k.removesuffix(".alpha") for k in steps.random_lora(self.pack, self.model, seed) if k.endswith(".alpha")
        ]
        blocks = {f"{name}.oft_blocks": 0.3 * torch.randn(4, 8, 8, generator=generator) for name in names}
        return {**blocks, **{f"{name}.alpha": torch.tensor(0.0) for name in names}}

    def glora(self, seed):
        generator, lora = torch.Generator().manual_seed(seed), {}
        for key in steps.random_lora(self.pack, self.model, seed):
            if key.endswith("lora_up.weight") and "attn1" in key:
                shapes = {"a1": (32, 3), "a2": (3, 32), "b1": (32, 3), "b2": (3, 32)}
                name = key.removesuffix(".lora_up.weight")
                lora |= {f"{name}.{k}.weight": 0.1 * torch.randn(s, generator=generator) for k, s in shapes.items()}
        return lora


KINDS = ("dora", "oft", "glora")


@pytest.mark.parametrize("kind", KINDS)
def test_a_style_is_load_lora(run, measured, kind):
    """Injection and all, at a strength that is not 1; the weights are bit for bit what they were."""
    lora = getattr(run, kind)(run.seed)
    before = {key: weight.clone() for key, weight in run.model.model.state_dict().items()}
    styled = run.sample(lora=lora, lora_strength=0.7)
    assert all(torch.equal(weight, before[key]) for key, weight in run.model.model.state_dict().items())
    merged = run.sample(run.loaded(lora, 0.7))
    comfy.model_management.unload_all_models()
    assert run.gap(styled, run.sample()) > 1e-3
    measured("style against Load LoRA", run.gap(styled, merged), at_most=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_injected_is_the_hosts_sampler_with_load_lora(run, measured, kind):
    """euler over the trajectory's levels by the host's own CFGGuider."""
    lora, model = getattr(run, kind)(run.seed), run.model
    styled = run.sample(lora=lora, lora_strength=0.7, **OFF)
    stylize, runs = run.pack.host.sampling.stylize, run.pack.host.sampling.runs
    trajectory = run.features.trajectory
    guider = comfy.samplers.CFGGuider(run.loaded(lora, 0.7))
    guider.set_conds(run.prompt, run.negative)
    guider.set_cfg(3.0)
    start, sigmas = stylize.choose_start(model, trajectory, None), runs.sigmas_of(trajectory.schedule)
    sampler = comfy.samplers.sampler_object("euler")
    host = guider.sample(torch.zeros_like(start), start, sampler, sigmas, disable_pbar=True)
    comfy.model_management.unload_all_models()
    host = host / (1 + float(sigmas[-1]) ** 2) ** 0.5
    scale = model.model.process_latent_in(torch.ones(1)).item()
    size = host.abs().max().item() * scale
    measured("style against euler with Load LoRA, relative", run.gap(styled, host) / size, at_most=1e-4)


def test_two_kinds_side_by_side_are_each_their_own(run, measured):
    """Disjoint regions at one noise level: each half is what that LoRA alone predicts there."""
    left = torch.zeros(1, 64, 64)
    left[..., :32] = 1
    loras = run.dora(run.seed), run.oft(run.seed + 2)
    styles = [
        {"positive": run.prompt, "lora": lora, "mask": mask} for lora, mask in zip(loras, (left, 1 - left), strict=True)
    ]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(run.seed))
    predicted = lambda **kw: steps.predicted(  # noqa: E731
        run.pack, steps.guider(run.pack, run.model, run.features, run.prompt, run.negative, **kw, **OFF)[0], x, 2.0
    )
    both = predicted(styles=steps.chain(run.pack, *styles), outside="regenerate")
    halves = [predicted(lora=lora) for lora in loras]
    measured("left half", (both - halves[0])[..., :4].abs().max().item(), at_most=1e-4)
    measured("right half", (both - halves[1])[..., 4:].abs().max().item(), at_most=1e-4)
    assert (halves[0] - halves[1]).abs().max() > 1e-2


def test_ramps_of_a_switch_are_load_lora_at_each_steps_strength(run, measured):
    """0 and a ramp to 1 of a DoRA, then an OFT: the UNet's prediction at every level of the run."""
    schedule, entry = (getattr(run.pack.core.lora.schedule, name) for name in ("LoraSchedule", "LoraEntry"))
    dora, oft = run.dora(run.seed), run.oft(run.seed)
    lora = schedule((entry(dora, 1.0, 0.0, 0.75, "dora", ramp_in=0.5), entry(oft, 0.5, 0.75, 1.0, "oft")))
    strengths = [(dora, 1 / 3), (dora, 2 / 3), (dora, 1.0), (oft, 0.5)]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(run.seed))
    trajectory, worst = run.features.trajectory, 0.0
    for t, (own, strength) in zip(trajectory.schedule.timesteps, strengths, strict=True):
        sigma = trajectory.schedule.sigma(t)
        guider = lambda model, **kw: steps.guider(  # noqa: E731
            run.pack, model, run.features, run.prompt, run.negative, **kw, **OFF
        )[0]
        ours = steps.predicted(run.pack, guider(run.model, lora=lora), x, sigma)
        theirs = steps.predicted(run.pack, guider(run.loaded(own, strength)), x, sigma)
        worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max()).item())
        comfy.model_management.unload_all_models()
    measured("largest relative difference of x0", worst, at_most=1e-4)


def test_weights_are_merged_once_a_run_and_forgotten_after_it(run, monkeypatch):
    merged = run.pack.host.lora.merged.MergedParameter
    made, plain, lora = [], merged._merged, run.oft(run.seed)
    monkeypatch.setattr(merged, "_merged", lambda self, *args: made.append(self) or plain(self, *args))
    kept = run.sample(lora=lora)
    layers = len(lora) // 2
    assert len(made) == len(set(made)) == layers
    assert all(parameter._kept is None for parameter in made)
    monkeypatch.setattr(run.pack.host.lora.merged, "has_room", lambda weight: False)
    made.clear()
    assert torch.equal(run.sample(lora=lora), kept)
    given = 2 * 2 * 2  # q and k of two layers, which are the content's in two steps
    assert len(made) == 4 * layers - given  # anew at each of 4 evaluations, to the same values
    assert all(parameter._kept is None for parameter in made)


def test_room_is_what_the_host_has_free_beyond_its_least(run, monkeypatch):
    weight, has_room = torch.zeros(1000), run.pack.host.lora.merged.has_room
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 5000)
    for free, expected in ((9001, True), (9000, False), (0, False)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device, free=free: free)
        assert has_room(weight) is expected


def test_a_weight_that_changes_during_a_run_is_merged_anew(run):
    """The host's hooks on prompts change weights between two evaluations."""
    parameter = run.pack.host.lora.merged.MergedParameter(
        "diffusion_model.x.weight", ("diff", (torch.ones(8, 8),)), "lora"
    )
    merge, weight = parameter.at(0.5), torch.rand(8, 8)
    assert torch.equal(merge(weight.clone()), weight + 0.5)
    assert torch.equal(merge(2 * weight), 2 * weight + 0.5)
    assert torch.equal(parameter.at(1.0)(weight.half()), (weight.half().float() + 1).half())


def test_the_models_own_patches_come_first_also_where_it_is_partly_loaded(run, measured):
    """Load LoRA before the sampler, a DoRA inside it; lowvram keeps the first as a function of the weight."""
    first, second = steps.random_lora(run.pack, run.model, run.seed + 5, size=0.3), run.dora(run.seed)
    carried = run.loaded(first, 0.6)
    theirs = run.sample(run.loaded(second, 0.7, carried), run.features)
    comfy.model_management.unload_all_models()
    ours = run.sample(carried, run.features, lora=second, lora_strength=0.7)
    comfy.model_management.unload_all_models()
    measured("whole", run.gap(ours, theirs), at_most=1e-4)
    unet = carried.model.diffusion_model
    carried.patch_model(torch.device("cpu"), lowvram_model_memory=1, load_weights=True)
    try:
        functions = {
            name: list(m.weight_function) for name, m in unet.named_modules() if getattr(m, "weight_function", None)
        }
        assert functions
        forward = run.pack.host.lora.adapters.ForwardLora(carried, second, 0.7)
        path = next(layer for layer in sorted(forward.layers) if layer in functions)
        module, x = unet.get_submodule(path), torch.randn(1, 5, 32)
        with run.pack.host.lora.forwards.Forwards().on(unet, [forward]):
            partly = module(x)
        assert {
            n: list(m.weight_function) for n, m in unet.named_modules() if getattr(m, "weight_function", None)
        } == functions
    finally:
        carried.unpatch_model()
    both = run.loaded(second, 0.7, carried)
    weight = both.patch_weight_to_device(f"diffusion_model.{path}.weight", return_weight=True)
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), None if module.bias is None else module.bias.double()
    )
    measured("partly loaded", (partly - exact).abs().max().item(), at_most=1e-4)


def test_half_precision_and_fp8_weights_are_read_as_the_host_reads_them(run, measured):
    import comfy.ops

    layer = comfy.ops.manual_cast.Linear(32, 32, dtype=torch.float8_e4m3fn)
    weight = torch.randn(32, 32).to(torch.float8_e4m3fn)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(torch.zeros(32).to(torch.float8_e4m3fn), requires_grad=False)
    change, merged = torch.randn(32, 32), run.pack.host.lora.merged
    function = merged.MergedParameter("layer.weight", ("diff", (change,)), "lora").at(0.5)
    x = torch.randn(3, 32)
    ours = merged.merged_forward(layer, {"weight": function}, layer.forward)(x)
    measured("fp8", (ours - x @ (weight.float() + 0.5 * change).T).abs().max().item(), at_most=1e-4)
    half = merged.merged_forward(layer, {"weight": function}, layer.forward)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    measured("fp8, run in bf16", (half.float() - ours).abs().max().item() / ours.abs().max().item(), at_most=3e-2)
    assert torch.equal(layer.weight.float(), weight.float())


def test_what_is_not_finite_at_a_strength_is_named(run):
    parameter = run.pack.host.lora.merged.MergedParameter("x.weight", ("diff", (torch.full((2, 2), 9e3),)), "lora")
    with pytest.raises(ValueError, match=r"lora: layer 'x.weight': at strength 8 .* not finite in torch.float16"):
        parameter.at(8.0)(torch.ones(2, 2, dtype=torch.float16))


def test_the_cost_is_said(run):
    forward = run.pack.host.lora.adapters.ForwardLora(run.model, {**run.oft(1), **TEXT}, 1.0, "lora")
    text, cost = forward.notes
    assert "2 text-encoder keys of lora" in text
    count, mb = len(run.oft(1)) // 2, len(run.oft(1)) / 2 * 32 * 32 * 4 / 1e6
    assert cost == (
        f"note: {count} weights of lora ({count} OFT) are merged for its rows: up to {mb:.3g} MB more on the computing "
        "device during the run"
    )


TEXT = {
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 8),
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(8, 2),
}
