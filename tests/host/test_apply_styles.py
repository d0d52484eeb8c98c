"""Apply Styles under the host's samplers: regions, LoRAs, switches and the kept content, as the pack's own sampler."""

from __future__ import annotations

import apply_bench as bench
import comfy.hooks
import comfy.samplers
import pytest
import regions_bench
import steps
import test_cycle
import torch
from probes import counting, lora_matrices, state_of
from test_injected_branches import Push, applied
from test_regions import SIZE, Scene, cells

LEFT = torch.zeros(SIZE)
LEFT[:, :6] = 1.0
SOFT = LEFT.clone()
SOFT[:, 4:8] = torch.tensor([0.8, 0.6, 0.4, 0.2])
RIGHT = 1.0 - LEFT


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


def styled(scene, styles, model=None, features=None, **settings):
    return bench.styled(scene.pack, model or scene.model, features or scene.features, styles, **settings)


def at_own_levels(scene, model, cfg=3.0):
    return bench.at_own_levels(model, scene.trajectory, scene.positive, scene.negative, cfg)


def sample(scene, model, **changes):
    noise = {"samples": torch.zeros_like(scene.x_T["samples"])}
    return bench.ksampler(model, scene.positive, scene.negative, noise, **changes)


def gap(ours, theirs) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


MASKS = {
    "one": (LEFT,), "soft": (SOFT,), "two": (LEFT, RIGHT), "overlapping": (LEFT, SOFT), "a rest": (LEFT, None),
    "everywhere": (None,),
}  # fmt: skip


@pytest.mark.parametrize("outside", ["content", "regenerate"])
@pytest.mark.parametrize("masks", MASKS)
def test_at_its_own_levels_it_is_the_injected_lora_sampler(scene, measured, masks, outside):
    styles = scene.styles(*(None if mask is None else cells(mask) for mask in MASKS[masks]))
    ours = at_own_levels(scene, styled(scene, styles, outside=outside))
    theirs = scene.sample(styles=styles, outside=outside)
    measured("the host's euler against the sampler node, relative", gap(ours, theirs), at_most=1e-5)


def test_a_switch_takes_its_turns_by_noise_level(scene, measured):
    first = regions_bench.switch(scene.pack, scene.loras[0], end_percent=0.5)[0][0]
    both = regions_bench.switch(scene.pack, scene.loras[1], start_percent=0.5, end_percent=1.0, previous=first)[0][0]
    styles = steps.chain(scene.pack, {"lora": both, "positive": scene.prompts[0], "mask": None})
    model = styled(scene, styles)
    theirs = scene.sample(styles=styles)
    measured("a switch against the sampler node, relative", gap(at_own_levels(scene, model), theirs), at_most=1e-5)
    whole = sample(scene, model, count=6)
    half = sample(scene, model, count=6, last_step=3)
    rest = bench.ksampler(
        model, scene.positive, scene.negative, {"samples": half}, count=6, start_step=3, disable_noise=True
    )
    measured("in two halves against one run, relative", gap(rest, whole), at_most=1e-5)


def test_noise_merging_of_a_trajectory_alone(scene, measured):
    styles = steps.chain(
        scene.pack,
        *({"positive": p, "mask": cells(m)} for p, m in zip(scene.prompts, (LEFT, RIGHT), strict=False)),
    )
    ours = at_own_levels(scene, styled(scene, styles, features=scene.trajectory, preset="paper 2026"))
    theirs = steps.sample(
        scene.pack, scene.model, scene.features, scene.positive, scene.negative, styles=styles,
        feature_steps=0, attention_steps=0, attention_mode="fixed",
    )  # fmt: skip
    measured("two prompts against the sampler node with nothing injected, relative", gap(ours, theirs), at_most=1e-5)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "heun", "dpmpp_2m", "dpmpp_sde", "lcm", "uni_pc"])
def test_any_sampler_keeps_the_content_outside(scene, sampler):
    out = sample(scene, styled(scene, scene.styles(cells(LEFT))), sampler=sampler, count=4)
    assert torch.equal(out[..., LEFT == 0], scene.content[..., LEFT == 0])
    assert torch.isfinite(out).all()
    assert (out - scene.content)[..., LEFT == 1].abs().max() > 1e-3


def test_nothing_covered_costs_nothing(scene):
    counted, rows = counting(scene.model)
    out = sample(scene, styled(scene, scene.styles(torch.zeros(1, 64, 96)), model=counted))
    assert rows == []
    torch.testing.assert_close(out, scene.content)


def test_every_branch_rides_in_one_batch(scene):
    """Two styles and the base outside: three branches of positive and negative, nothing more."""
    counted, rows = counting(scene.model)
    narrow = torch.zeros(SIZE)
    narrow[:, 8:10] = 1.0
    sample(scene, styled(scene, scene.styles(cells(LEFT), cells(narrow)), model=counted, outside="regenerate"), count=3)
    assert rows == [6] * 3


def test_the_model_is_as_before(scene):
    before = sample(scene, scene.model), state_of(scene.model)
    patched = styled(scene, scene.styles(cells(LEFT), cells(RIGHT)))
    own = state_of(patched)
    first = sample(scene, patched)
    assert state_of(patched) == own
    assert state_of(scene.model) == before[1]
    assert torch.equal(sample(scene, scene.model), before[0])
    assert torch.equal(sample(scene, patched), first)
    assert not lora_matrices(scene.pack)


def test_a_prompt_with_hooks_is_refused(scene):
    hooked = [[scene.prompts[0][0][0], {"hooks": comfy.hooks.HookGroup()}]]
    styles = steps.chain(scene.pack, {"lora": scene.loras[0], "positive": hooked, "mask": None})
    with pytest.raises(ValueError, match="positive of style 1 carries hooks, which Apply Styles cannot"):
        styled(scene, styles)


class Watched(Push):
    """Also notes what the host does with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def get_models(self):
        self.calls.append("get_models")
        return super().get_models()

    def pre_run(self, *args):
        self.calls.append("pre_run")
        return super().pre_run(*args)

    def cleanup(self):
        self.calls.append("cleanup")
        return super().cleanup()

    def copy(self):
        copied = super().copy()
        copied.__class__, copied.calls = Watched, self.calls
        return copied


def test_a_control_of_a_styles_prompt_acts_in_its_region(scene):
    """And the host has loaded, prepared and cleaned it up, as it does for a prompt of its own."""
    control = Watched()
    rows = (
        (scene.loras[0], applied(control, scene.prompts[0]), LEFT),
        (scene.loras[1], scene.prompts[1], RIGHT),
    )
    styles = steps.chain(scene.pack, *({"lora": o, "positive": p, "mask": cells(m)} for o, p, m in rows))
    sigma = 2.0
    x = scene.randn(1, 4, *SIZE) * sigma
    with_control, without = (
        _predicted(scene, styled(scene, chain), x, sigma) for chain in (styles, scene.styles(cells(LEFT), cells(RIGHT)))
    )
    changed = (with_control - without).abs().amax((0, 1))
    assert changed[LEFT == 1].max() > 1e-2
    assert changed[RIGHT == 1].max() < 1e-4
    assert [call for i, call in enumerate(control.calls) if call not in control.calls[:i]] == [
        "get_models", "pre_run", "cleanup",
    ]  # fmt: skip
    assert control.calls[-1] == "cleanup"
    assert sum(control.rows) == 2, "positive and negative of one style"


def _predicted(scene, model, x, sigma):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(scene.positive, scene.negative)
    guider.set_cfg(3.0)
    return steps.predicted(scene.pack, guider, x, sigma)


def test_noises_of_a_trajectory_are_said_not_to_be_added(scene, pack):
    noisy = test_cycle.Scene(pack, scene.seed)
    trajectory, *_ = noisy.invert()
    styles = steps.chain(pack, {"positive": noisy.other, "mask": None})
    given = {"between": "nearest", "outside": "content", "mask_grow": 0, "mask_feather": 0}
    out = pack.pipeline.apply_styles.ApplyStyles.execute(
        model=noisy.model, features=trajectory, styles=styles, preset={"preset": "paper 2026"}, **given
    )
    (words,) = out.ui["text"]
    assert "the trajectory's noises are not added: the sampler takes its own steps" in words
    assert "its noise levels, nearest among the" in words
