"""LoRA switch in a run: each step is the scheduled LoRA's own step (DiffStyler 2026, eq. 9)."""

from __future__ import annotations

import itertools

import comfy.model_management
import pytest
import steps
import tiny
import torch
from probes import counting
from test_regions import SIZE, Scene, cells


def switch(scene, *entries):
    """A schedule of (number of the LoRA, start, end[, strength]), start and end in steps of the run's four."""
    module = scene.pack.core.lora.schedule
    rows = [(i, start, end, *(rest or (1.0,))) for i, start, end, *rest in entries]
    made = (module.LoraEntry(scene.loras[i], strength, a / 4, b / 4, f"style {i}") for i, a, b, strength in rows)
    return module.LoraSchedule(tuple(made))


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


@pytest.mark.parametrize("in_a_region", [False, True])
def test_every_step_is_that_of_the_scheduled_lora(scene, measured, in_a_region):
    """LoRA 0 for step 0, the base model at step 1, LoRA 1 at half strength for steps 2 and 3."""
    schedule = switch(scene, (0, 0, 1), (1, 2, 4, 0.5))
    x = scene.randn(1, 4, *SIZE)
    own = [{"lora": scene.loras[0]}, {}, *[{"lora": scene.loras[1], "lora_strength": 0.5}] * 2]
    half = torch.zeros(SIZE)
    half[:, :6] = 1.0
    for step, alone in enumerate(own):
        sigma = scene.trajectory.schedule.sigma(scene.trajectory.schedule.timesteps[step])
        at = x * (1 + sigma**2) ** 0.5
        if in_a_region:
            style = {"lora": schedule, "positive": scene.positive, "mask": cells(half)}
            ours = scene.predicted(at, sigma, styles=steps.chain(scene.pack, style), outside="regenerate") * half
        else:
            ours = scene.predicted(at, sigma, lora=schedule)
        theirs = scene.predicted(at, sigma, **alone) * (half if in_a_region else 1.0)
        measured(f"step {step}, prediction", (ours - theirs).abs().max().item() / max(sigma, 1.0), at_most=1e-5)


def test_order_matters_and_repeats_exactly(scene):
    a_b, b_a = switch(scene, (0, 0, 2), (1, 2, 4)), switch(scene, (1, 0, 2), (0, 2, 4))
    first, other = scene.sample(lora=a_b), scene.sample(lora=b_a)
    assert (first - other).abs().max() > 1e-3
    for schedule, before in ((a_b, first), (b_a, other), (a_b, first)):
        assert torch.equal(scene.sample(lora=schedule), before)


def test_a_constant_schedule_is_the_lora(scene):
    whole = scene.sample(lora=switch(scene, (0, 0, 4, 0.7)))
    assert torch.equal(whole, scene.sample(lora=scene.loras[0], lora_strength=0.7))
    in_turns = scene.sample(lora=switch(scene, (0, 0, 2, 0.7), (0, 2, 4, 0.7)))
    torch.testing.assert_close(in_turns, whole, rtol=1e-5, atol=1e-4)  # too short for weights of its own
    assert torch.equal(whole, scene.sample(lora=switch(scene, (0, 0, 4, 1.4)), lora_strength=0.5))


def test_an_empty_window_is_the_base_model(scene):
    assert torch.equal(scene.sample(lora=switch(scene)), scene.sample())
    assert not torch.equal(scene.sample(lora=switch(scene, (0, 3, 4))), scene.sample())


def test_ramps_change_the_strength_step_by_step(scene):
    module = scene.pack.core.lora.schedule
    ramped = module.LoraSchedule((module.LoraEntry(scene.loras[0], 1.0, name="a", ramp_in=0.25, ramp_out=0.5),))
    by_hand = switch(scene, *((0, i, i + 1, s) for i, s in enumerate((0.5, 1.0, 2 / 3, 1 / 3))))
    assert torch.equal(scene.sample(lora=ramped), scene.sample(lora=by_hand))


def test_inside_regions_each_style_has_its_own_turns(scene):
    """Two regions that swap their LoRAs half way: neither side's schedule leaks into the other."""
    left = torch.zeros(SIZE)
    left[:, :6] = 1.0
    a_b, b_a = switch(scene, (0, 0, 2), (1, 2, 4)), switch(scene, (1, 0, 2), (0, 2, 4))
    rows = [(a_b, cells(left)), (b_a, cells(1 - left))]
    styles = [{"lora": s, "positive": scene.positive, "mask": m} for s, m in rows]
    both = scene.sample(styles=steps.chain(scene.pack, *styles))
    swapped = scene.sample(styles=steps.chain(scene.pack, *reversed(styles)))
    torch.testing.assert_close(both, swapped, rtol=1e-4, atol=1e-3)
    constant = [{**style, "lora": scene.loras[i]} for i, style in enumerate(styles)]
    assert (both - scene.sample(styles=steps.chain(scene.pack, *constant))).abs().max() > 1e-2


def test_switching_copies_no_weight(scene, monkeypatch):
    """Rows as without a switch; no weight patched, moved or replaced; each LoRA is made ready once."""
    weights = {n: (p.data_ptr(), p.clone()) for n, p in scene.model.model.named_parameters()}
    made = itertools.count()
    lora_class = scene.pack.host.lora.adapters.ForwardLora
    make = lora_class.__init__
    monkeypatch.setattr(lora_class, "__init__", lambda self, *a, **k: (next(made), make(self, *a, **k))[1])
    patched = []
    monkeypatch.setattr(type(scene.model), "patch_weight_to_device", lambda self, key, *a, **k: patched.append(key))
    model, rows = counting(scene.model)
    many = switch(scene, (0, 0, 1), (1, 1, 2), (0, 2, 3), (2, 3, 4))
    scene.sample(model, lora=many)
    assert rows == [2] * 4
    assert next(made) == len(many.entries)
    assert not patched
    for name, p in scene.model.model.named_parameters():
        assert p.data_ptr() == weights[name][0]
        assert torch.equal(p, weights[name][1])
    comfy.model_management.unload_all_models()


def test_a_turn_too_short_for_a_step_is_told(scene):
    """A tenth of four steps: nothing of it acts, and the node says so."""
    schedule = switch(scene, (1, 0, 2), (0, 2, 2.4))
    module = scene.pack.host.lora.run
    run = module.LoraRun(scene.model, schedule, 1.0, "lora", 4)
    assert run.notes == ("note: lora, 'style 0' 50 to 60 %: none of the 4 steps",)
    assert torch.equal(scene.sample(lora=schedule), scene.sample(lora=switch(scene, (1, 0, 2))))


def test_a_lora_of_another_family_in_a_schedule_is_named(scene):
    other = steps.random_lora(scene.pack, tiny.make_model("sdxl"), 1)
    foreign = {f"{key}.x": value for key, value in other.items()}
    module = scene.pack.core.lora.schedule
    schedule = module.LoraSchedule((module.LoraEntry(foreign, 1.0, 0.0, 0.5, "foreign"),))
    with pytest.raises(ValueError, match=r"style 1, 'foreign' 0 to 50 % matches 0 layers"):
        scene.sample(styles=steps.chain(scene.pack, {"lora": schedule, "positive": scene.positive}))
