"""Apply Injection under the host's samplers: equal to the pack's own, exact between levels, and gone when bypassed."""

from __future__ import annotations

import apply_bench as bench
import comfy.model_management
import comfy.samplers
import comfy.sd
import pytest
import reference
import steps
import tiny
import torch
from comfy.patcher_extension import WrappersMP
from probes import Ending, counting, state_of

KINDS = [("small", False), ("sd15", False), ("sd21", True), ("sdxl", False)]
SITES = {
    "small": {},
    "sd15": {"feature_layers": "4", "self_attention_layers": "4-11"},
    "sd21": {"feature_layers": "4", "self_attention_layers": "4-11"},
    "sdxl": {"feature_layers": "1", "self_attention_layers": "0-5"},
}


class Scene:
    """A model, its content's features, prompts, and an empty latent of the content's size."""

    def __init__(self, pack, seed, kind="small", velocity=False, size=8, **capturing) -> None:
        self.pack, self.seed = pack, seed
        self.model = tiny.make_model(kind, velocity=velocity, seed=seed)
        sdxl = kind == "sdxl"
        self.empty, self.positive, self.negative = (tiny.make_prompt(seed + i, sdxl=sdxl) for i in range(3))
        self.trajectory, self.x_T, _ = steps.invert(pack, self.model, tiny.make_latent(seed, size), self.empty)
        self.capturing = {**SITES[kind], **capturing}
        self.features = self.capture()
        self.noise = {"samples": torch.zeros_like(self.x_T["samples"])}

    def capture(self, **changes):
        return steps.capture(self.pack, self.model, self.trajectory, self.empty, **{**self.capturing, **changes})

    def injected(self, features=None, model=None, **settings):
        return bench.injected(self.pack, model or self.model, features or self.features, **settings)

    def sample(self, model, **changes):
        return bench.ksampler(model, self.positive, self.negative, self.noise, **changes)


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


def gap(ours, theirs) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("storage", ["memory", "disk", "recompute"])
@pytest.mark.parametrize("between", ["interpolated", "nearest"])
def test_at_its_own_levels_it_is_the_injected_lora_sampler(scene, measured, storage, between):
    features = scene.capture(storage=storage)
    model = scene.injected(features, between=between)
    ours = bench.at_own_levels(model, scene.trajectory, scene.positive, scene.negative)
    theirs = steps.sample(scene.pack, scene.model, features, scene.positive, scene.negative)
    measured("KSampler's euler against the sampler node, relative", gap(ours, theirs), at_most=1e-5)


@pytest.mark.parametrize(("kind", "velocity"), KINDS[1:])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_on_every_family(pack, seed, measured, kind, velocity, cfg):
    scene = Scene(pack, seed, kind, velocity, size=16)
    model = scene.injected()
    ours = bench.at_own_levels(model, scene.trajectory, scene.positive, scene.negative, cfg)
    theirs = steps.sample(pack, scene.model, scene.features, scene.positive, scene.negative, cfg=cfg)
    plain = bench.at_own_levels(scene.model, scene.trajectory, scene.positive, scene.negative, cfg)
    measured("euler against the sampler node, relative", gap(ours, theirs), at_most=1e-5)
    assert gap(ours, plain) > 1e-3, "injection had no effect: the comparison says nothing"


SAMPLERS = [
    ("euler", "karras", 7), ("euler", "simple", 3), ("heun", "normal", 3), ("dpmpp_2m", "karras", 6),
    ("dpmpp_sde", "normal", 3), ("dpmpp_2m_sde", "exponential", 5), ("dpm_2_ancestral", "normal", 3),
    ("uni_pc", "normal", 4), ("lcm", "sgm_uniform", 4), ("ddim", "ddim_uniform", 10), ("res_multistep", "beta", 5),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "scheduler", "count"), SAMPLERS)
def test_any_sampler_and_scheduler(scene, sampler, scheduler, count):
    """Something is injected, everything is finite, and not one evaluation is made more than without."""
    counted, rows = counting(scene.model)
    chosen = {"sampler": sampler, "scheduler": scheduler, "count": count}
    plain = scene.sample(counted, **chosen)
    without, rows[:] = list(rows), []
    ours = scene.sample(scene.injected(model=counted), **chosen)
    assert rows == without
    assert torch.isfinite(ours).all()
    assert gap(ours, plain) > 1e-3


def held_by_hand(scene, sigma, source):
    """What the content's own run holds at a noise level: one plain evaluation of the path there, tapped by hooks."""
    unet, taken = scene.model.model.diffusion_model, {}
    clone = scene.model.clone()

    def patch(layer):
        def attention(q, k, v, extra_options):
            taken[layer] = (q.clone(), k.clone())
            return comfy.ldm.modules.attention.optimized_attention(q, k, v, extra_options["n_heads"])

        return attention

    for layer in (2, 3):
        clone.set_model_attn1_replace(patch(layer), "output", layer)
    hook = unet.output_blocks[1][0].out_layers.register_forward_hook(
        lambda m, a, out: taken.update({1: (out.clone(),)})
    )
    try:
        x = scene.trajectory.exploding_at(sigma)
        guider = scene.pack.host.sampling.runs.SourceGuider(clone)
        guider.set_source(source)
        steps.predicted(scene.pack, guider, x, sigma)
    finally:
        hook.remove()
    return taken


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_interpolated_lies_between_two_levels(scene, measured, share):
    """On the straight line, and nearer to the content's run at that very level than the nearest step is."""
    between = scene.pack.core.injection.between
    schedule = scene.trajectory.schedule
    high, low = (schedule.sigma(t) for t in schedule.timesteps[1:3])
    sigma = high ** (1 - share) * low**share
    exact = held_by_hand(scene, sigma, scene.empty)
    level = between.Level.of(schedule, sigma, exactly=True)
    stored = scene.capture(feature_steps=4)
    near, far = stored.at(level.step), stored.at(level.beside)
    blended = between.BetweenSteps(near, far, level.share)
    for site, held in blended.items():
        for mine, a, b in zip(held, near[site], far[site], strict=True):
            torch.testing.assert_close(mine, a + level.share * (b - a), rtol=1e-5, atol=1e-5)
    straight, nearest = (
        max(gap(a, b) for site, held in taken.items() for a, b in zip(held, exact[site.layer], strict=True))
        for taken in (blended, near)
    )
    measured("interpolated between two of four levels, relative", straight)
    measured("the nearest of four levels, relative", nearest)
    assert straight < nearest


def test_what_is_injected_at_a_level_between_is_written_out(scene, measured):
    """One evaluation against hooks that put in the level's own features and maps, kappa from the level's own t."""
    schedule = scene.trajectory.schedule
    sigma = (schedule.sigma(schedule.timesteps[1]) * schedule.sigma(schedule.timesteps[2])) ** 0.5 * 0.9
    exact = held_by_hand(scene, sigma, scene.empty)
    level = scene.pack.core.injection.between.Level.of(schedule, sigma, exactly=True)
    x = torch.randn(scene.trajectory.noise.shape, generator=torch.Generator().manual_seed(scene.seed)) * sigma
    model = scene.injected(scene.capture(storage="recompute"), feature_steps=3, attention_steps=1, blend="map")
    kappa = max(0.0, (750.0 - level.t) / 250.0)
    assert level.step == 2
    assert level.t + 250 > 501
    kappa = min(kappa, 1.0)
    ours = predicted(scene, model, x, sigma)
    clone, unet = scene.model.clone(), scene.model.model.diffusion_model

    def attention(layer):
        return lambda q, k, v, o: reference.blended_attention(q, k, v, exact[layer], kappa, "map", o["n_heads"])

    for layer in (2, 3):
        clone.set_model_attn1_replace(attention(layer), "output", layer)
    hook = unet.output_blocks[1][0].out_layers.register_forward_hook(lambda m, a, out: exact[1][0].expand_as(out))
    try:
        theirs = predicted(scene, clone, x, sigma)
    finally:
        hook.remove()
    measured("x0 against hooks with the maps of eq. 5 written out, relative", gap(ours, theirs), at_most=1e-5)
    assert gap(ours, predicted(scene, scene.model, x, sigma)) > 1e-4


def predicted(scene, model, x, sigma):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(scene.positive, scene.negative)
    guider.set_cfg(3.0)
    return steps.predicted(scene.pack, guider, x, sigma)


def test_two_halves_are_one_run(scene, measured):
    """KSampler (Advanced): the windows hang on the noise level, not on the sampler's count of steps."""
    model = scene.injected()
    whole = scene.sample(model, count=6, disable_noise=False)
    first = scene.sample(model, count=6, last_step=3, force_full_denoise=False)
    latent = {"samples": first}
    second = bench.ksampler(
        model,
        scene.positive,
        scene.negative,
        latent,
        count=6,
        start_step=3,
        disable_noise=True,
        force_full_denoise=True,
    )
    measured("two halves against one run, relative", gap(second, whole), at_most=1e-5)


@pytest.mark.parametrize(("how", "at"), [("completes", 0), ("error", 2), ("interrupt", 2)])
def test_the_model_is_as_before(scene, monkeypatch, how, at):
    before = scene.sample(scene.model), state_of(scene.model)
    ending = Ending(monkeypatch)
    patched = scene.injected(scene.capture(storage="recompute"))
    own = state_of(patched)
    ending.plan(how, at)
    if how == "completes":
        scene.sample(patched)
    else:
        stop = RuntimeError if how == "error" else comfy.model_management.InterruptProcessingException
        with pytest.raises(stop):
            scene.sample(patched)
    ending.plan("completes", 0)
    comfy.model_management.interrupt_current_processing(False)
    assert state_of(patched) == own
    assert state_of(scene.model) == before[1]
    assert torch.equal(scene.sample(scene.model), before[0])
    assert torch.equal(scene.sample(patched), scene.sample(patched))


def test_with_and_without_in_one_prompt(scene):
    """Turn by turn, neither touches the other."""
    patched = scene.injected()
    plain, ours = scene.sample(scene.model), scene.sample(patched)
    for _ in range(2):
        assert torch.equal(scene.sample(scene.model), plain)
        assert torch.equal(scene.sample(patched), ours)


def test_a_batch_of_pictures_over_one_content(scene, measured):
    """Every picture of a batch is injected as it would be alone."""
    generator = torch.Generator().manual_seed(scene.seed)
    batch = torch.randn(3, *scene.x_T["samples"].shape[1:], generator=generator) * 3.0
    model = scene.injected()
    together, *alone = (
        bench.at_own_levels(model, scene.trajectory, scene.positive, scene.negative, latent=latent)
        for latent in (batch, *batch.split(1))
    )
    measured("a batch against one by one, relative", gap(together, torch.cat(alone)), at_most=1e-5)


def test_short_of_memory_the_result_is_the_same(scene, measured, monkeypatch):
    model = scene.injected()
    together = scene.sample(model)
    monkeypatch.setattr(type(scene.model.model), "memory_required", lambda *_, **__: 1e20)
    counted, rows = counting(model)
    apart = scene.sample(counted)
    assert set(rows) == {1}
    measured("cond and uncond apart against together, relative", gap(apart, together), at_most=1e-5)


def test_below_a_patched_lora(scene, measured):
    """Load LoRA before or after: the weights are the host's, the injection is ours."""
    lora = steps.random_lora(scene.pack, scene.model, scene.seed, size=0.3)
    with_lora, _ = comfy.sd.load_lora_for_models(scene.model, None, lora, 0.7, 0.0)
    first = scene.sample(scene.injected(model=with_lora))
    second, _ = comfy.sd.load_lora_for_models(scene.injected(), None, lora, 0.7, 0.0)
    assert torch.equal(scene.sample(second), first)
    own = steps.sample(
        scene.pack, scene.model, scene.features, scene.positive, scene.negative, lora=lora, lora_strength=0.7
    )
    levels = bench.at_own_levels(scene.injected(model=with_lora), scene.trajectory, scene.positive, scene.negative)
    measured("Load LoRA and Apply Injection against the sampler node, relative", gap(levels, own), at_most=1e-4)


def test_recompute_under_weights_patched_later_is_refused(scene):
    lora = steps.random_lora(scene.pack, scene.model, scene.seed)
    features = scene.capture(storage="recompute")
    counted, rows = counting(scene.model)
    later, _ = comfy.sd.load_lora_for_models(scene.injected(features, model=counted), None, lora, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"features of Apply Injection: its storage is 'recompute'"):
        scene.sample(later)
    assert rows == []


@pytest.mark.parametrize("storage", ["memory", "recompute"])
def test_evaluations(scene, storage):
    counted, rows = counting(scene.model)
    features = steps.capture(scene.pack, counted, scene.trajectory, scene.empty, storage=storage)
    rows.clear()
    bench.at_own_levels(scene.injected(features, model=counted), scene.trajectory, scene.positive, scene.negative)
    assert rows == ([2] * 4 if storage == "memory" else [1, 2] * 4)


def test_a_latent_of_another_size_is_refused(scene):
    counted, rows = counting(scene.model)
    wrong = {"samples": torch.zeros(1, 4, 12, 8)}
    with pytest.raises(ValueError, match=r"latent_image: \[1, 4, 12, 8\] does not fit Apply Injection.*x_T"):
        bench.ksampler(scene.injected(model=counted), scene.positive, scene.negative, wrong)
    assert rows == []


def test_features_of_another_family_are_refused(pack, scene, seed):
    other = tiny.make_model("small", velocity=True, seed=seed)
    with pytest.raises(ValueError, match="features was made with another kind of model"):
        scene.injected(model=other)
    later = scene.injected()
    later.add_object_patch("model_sampling", other.get_model_object("model_sampling"))
    with pytest.raises(ValueError, match="features of Apply Injection was made with another kind of model"):
        scene.sample(later)


def test_twice_and_in_our_own_nodes_it_is_refused(pack, scene):
    patched = scene.injected()
    carries = r"model carries Apply Injection or Apply Styles already.*before that node"
    with pytest.raises(ValueError, match=carries):
        scene.injected(model=patched)
    with pytest.raises(ValueError, match=carries):
        steps.invert(pack, patched, tiny.make_latent(scene.seed, 8), scene.empty)
    with pytest.raises(ValueError, match=carries):
        steps.capture(pack, patched, scene.trajectory, scene.empty)
    with pytest.raises(ValueError, match=carries):
        steps.sample(pack, patched, scene.features, scene.positive, scene.negative)


def test_evaluated_around_the_samplers_it_is_an_error(scene):
    """A node that calls the host's batch itself, without a run, gets no silent picture."""
    patched = scene.injected()
    options = {"transformer_options": {"wrappers": patched.wrappers}}
    assert WrappersMP.CALC_COND_BATCH in patched.wrappers
    with pytest.raises(ValueError, match="Apply Injection is on this MODEL, and it was evaluated outside of a run"):
        comfy.samplers.calc_cond_batch(scene.model.model, [None], scene.x_T["samples"], torch.ones(1), options)


@pytest.mark.parametrize("value", ["linear", None])
def test_another_choice_between_is_refused(scene, value):
    with pytest.raises(ValueError, match="between must be one of"):
        scene.injected(between=value)
