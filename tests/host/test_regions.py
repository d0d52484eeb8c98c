"""Styles in regions: eq. 8 against each style's own prediction, eq. 7 bit for bit, and what both cost."""

from __future__ import annotations

import comfy.model_management
import pytest
import steps
import tiny
import torch
from probes import counting, state_of

SIZE = (8, 12)  # latent height and width; the picture is 64 x 96
NOTHING = {"feature_steps": 0, "attention_steps": 0}
"""What eq. 8's base term injects."""


class Scene:
    """One model, one content, several random styles; everything drawn from one seed."""

    def __init__(self, pack, seed: int, count: int = 3, storage: str = "memory") -> None:
        self.pack, self.seed = pack, seed
        self.model = tiny.make_model("small", seed=seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.latent = {"samples": self.randn(1, 4, *SIZE) * 0.8 / 0.18215}
        self.empty, self.positive, self.negative = (tiny.make_prompt(seed + i) for i in range(3))
        self.trajectory, self.x_T, _ = steps.invert(pack, self.model, self.latent, self.empty)
        self.features = steps.capture(pack, self.model, self.trajectory, self.empty, storage=storage)
        self.loras = [steps.random_lora(pack, self.model, seed + 10 + i, size=0.3) for i in range(count)]
        self.prompts = [tiny.make_prompt(seed + 20 + i) for i in range(count)]

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def styles(self, *masks: torch.Tensor | None) -> tuple:
        rows = zip(self.loras, self.prompts, masks, strict=False)
        return steps.chain(self.pack, *({"lora": lora, "positive": p, "mask": m} for lora, p, m in rows))

    def guider(self, model=None, **changes):
        return steps.guider(self.pack, model or self.model, self.features, self.positive, self.negative, **changes)[0]

    def predicted(self, x, sigma, **changes):
        return steps.predicted(self.pack, self.guider(**changes), x, sigma)

    def alone(self, i, x, sigma, **changes):
        """What style i alone predicts, as the one LoRA of a simple graph."""
        one = steps.guider(
            self.pack, self.model, self.features, self.prompts[i], self.negative, lora=self.loras[i], **changes
        )[0]
        return steps.predicted(self.pack, one, x, sigma)

    def sample(self, model=None, **changes):
        return steps.sample(self.pack, model or self.model, self.features, self.positive, self.negative, **changes)

    @property
    def content(self):
        return self.model.model.process_latent_out(self.trajectory.content)


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


def at_random_level(scene):
    """(step, sigma, x) of the model's own scale."""
    step = int(torch.randint(0, 4, (1,), generator=scene.generator))
    sigma = scene.trajectory.schedule.sigma(scene.trajectory.schedule.timesteps[step])
    return step, sigma, scene.randn(1, 4, *SIZE) * (1 + sigma**2) ** 0.5


def cells(values):
    """A mask at the picture's size from values per latent pixel."""
    return values.repeat_interleave(8, 0).repeat_interleave(8, 1)[None]


def masks_of(kind, scene):
    """Two masks [h, w] at latent size."""
    a, b = torch.zeros(SIZE), torch.zeros(SIZE)
    if kind == "disjoint":
        a[:, :5], b[2:, 7:] = 1.0, 1.0
    elif kind == "soft":
        a = torch.rand(SIZE, generator=scene.generator) * 0.5
        b = torch.rand(SIZE, generator=scene.generator) * 0.5
    else:  # overlapping, their sum up to 2
        a, b = (torch.rand(SIZE, generator=scene.generator) for _ in range(2))
        a[:, :6] = b[:, 3:9] = 1.0
    return a, b


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["disjoint", "soft", "overlapping"])
def test_the_prediction_is_the_sum_of_eq_8(scene, measured, kind, cfg):
    step, sigma, x = at_random_level(scene)
    a, b = masks_of(kind, scene)
    ours = scene.predicted(x, sigma, cfg=cfg, styles=scene.styles(cells(a), cells(b)), outside="regenerate")
    each = [scene.alone(i, x, sigma, cfg=cfg).double() for i in range(2)]
    base = scene.predicted(x, sigma, cfg=cfg, **NOTHING).double()
    total = (a + b).double()
    theirs = sum(m.double() / total.clamp(min=1) * p for m, p in zip((a, b), each, strict=True))
    theirs = theirs + (1 - total).clamp(min=0) * base
    assert (each[0] - each[1]).abs().max() > 1e-3
    assert (each[0] - base).abs().max() > 1e-3
    eps = (ours.double() - theirs).abs().max().item() / sigma  # eps = (x - x0) / sigma
    measured(f"eps of {kind} masks, cfg {cfg:g}, step {step}, against the sum written out", eps, at_most=1e-4)


@pytest.mark.parametrize("outside", ["content", "regenerate"])
def test_a_mask_of_ones_is_no_mask(scene, outside):
    full = scene.sample(styles=scene.styles(torch.ones(1, 64, 96)), outside=outside)
    assert torch.equal(full, scene.sample(styles=scene.styles(None), outside=outside))
    one = steps.sample(scene.pack, scene.model, scene.features, scene.prompts[0], scene.negative, lora=scene.loras[0])
    assert torch.equal(full, one), "one style everywhere is the simple graph"


def test_empty_masks_leave_the_content_and_cost_nothing(scene):
    empty = torch.zeros(1, 64, 96)
    model, rows = counting(scene.model)
    assert torch.equal(scene.sample(model, styles=scene.styles(empty, empty)), scene.content)
    assert rows == []
    base = scene.sample(styles=scene.styles(empty), outside="regenerate")
    assert torch.equal(base, scene.sample(**NOTHING)), "regenerate: the base model's picture, nothing injected"


@pytest.mark.parametrize("outside", ["content", "regenerate"])
def test_an_empty_mask_costs_no_row(scene, outside):
    left, empty = torch.zeros(1, 64, 96), torch.zeros(1, 64, 96)
    left[..., :48] = 1
    model, rows = counting(scene.model)
    with_empty = scene.sample(model, styles=scene.styles(left, empty), outside=outside)
    assert rows == [2 if outside == "content" else 4] * 4
    assert torch.equal(with_empty, scene.sample(styles=scene.styles(left), outside=outside))


def test_half_and_half_is_each_halfs_own_prediction(scene, measured):
    left = torch.zeros(SIZE)
    left[:, :6] = 1
    _, sigma, x = at_random_level(scene)
    both = scene.predicted(x, sigma, styles=scene.styles(cells(left), cells(1 - left)))
    for i, half in enumerate((left, 1 - left)):
        own = scene.alone(i, x, sigma)
        measured(f"half {i + 1}", ((both - own) * half).abs().max().item() / sigma, at_most=1e-4)


@pytest.mark.parametrize("count", [1, 2, 8, 9])
@pytest.mark.parametrize("outside", ["content", "regenerate"])
def test_rows_per_step(pack, seed, count, outside):
    """2 x styles, and 2 for the base where it is needed; all in one forward. Eight styles are no limit."""
    scene = Scene(pack, seed, count)
    strips = [torch.zeros(1, 64, 96) for _ in range(count)]
    for i, strip in enumerate(strips):
        strip[..., 8 * i : 8 * i + 8] = 1.0
    model, rows = counting(scene.model)
    out = scene.sample(model, styles=scene.styles(*strips), outside=outside)
    assert rows == [2 * count + (2 if outside == "regenerate" else 0)] * 4
    assert torch.isfinite(out).all()
    rows.clear()
    scene.sample(model, styles=scene.styles(*strips), outside=outside, cfg=1.0)
    assert rows == [count + (outside == "regenerate")] * 4
    rows.clear()
    whole = [*strips[:-1], None]  # the last takes the rest: no base is left
    scene.sample(model, styles=scene.styles(*whole), outside=outside)
    assert rows == [2 * count] * 4


def test_recompute_adds_one_row_for_all_styles(pack, seed):
    scene = Scene(pack, seed, 2)
    model, rows = counting(scene.model)
    scene.features = steps.capture(pack, model, scene.trajectory, scene.empty, storage="recompute")
    left = torch.zeros(1, 64, 96)
    left[..., :48] = 1
    recomputed = scene.sample(model, styles=scene.styles(left, 1 - left))
    assert rows == [1, 4] * 4
    scene.features = steps.capture(pack, scene.model, scene.trajectory, scene.empty)
    assert torch.equal(recomputed, scene.sample(styles=scene.styles(left, 1 - left)))


def test_low_memory_splits_the_styles_with_the_same_result(scene, measured, monkeypatch):
    a, b = masks_of("overlapping", scene)
    styles = scene.styles(cells(0.7 * a), cells(0.2 * b))
    model, rows = counting(scene.model)
    together = scene.sample(model, styles=styles, outside="regenerate")
    assert rows == [6] * 4
    rows.clear()
    for free, expected in ((1, [1] * 24), (None, None)):
        if free is None:  # room for two rows or so
            free = scene.model.model.memory_required([3, 4, *SIZE]) * 1.5
        monkeypatch.setattr(type(scene.model), "get_free_memory", lambda self, device, f=free: f)
        split = scene.sample(model, styles=styles, outside="regenerate")
        assert sum(rows) == 24
        assert rows == expected if expected else max(rows) < 6
        rows.clear()
        scale = scene.model.model.process_latent_in(torch.ones(1)).item()
        difference = (split - together).abs().max().item() * scale
        measured(f"split by {free:.3g} bytes against one batch", difference, at_most=1e-3)


def test_prompts_of_different_lengths_need_no_common_batch(scene, measured):
    """The host then evaluates them apart, in an order of its own."""
    scene.prompts[1] = tiny.make_prompt(5, tokens=77 * 5 + 2)
    left = torch.zeros(SIZE)
    left[:, :6] = 1
    _, sigma, x = at_random_level(scene)
    both = scene.predicted(x, sigma, styles=scene.styles(cells(left), cells(1 - left)))
    for i, half in enumerate((left, 1 - left)):
        own = scene.alone(i, x, sigma)
        measured(f"half {i + 1}", ((both - own) * half).abs().max().item() / sigma, at_most=1e-4)


@pytest.mark.parametrize("soft", [False, True])
def test_outside_the_mask_the_latent_is_the_content_bit_for_bit(scene, soft):
    mask = torch.zeros(1, 64, 96)
    mask[:, 8:40, 24:72] = 0.6 if soft else 1.0
    out = scene.sample(styles=scene.styles(mask), mask_feather=8 if soft else 0)
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[0 if soft else 1 : 6 if soft else 5, 2 if soft else 3 : 10 if soft else 9] = False
    assert torch.equal(out[..., outside], scene.content[..., outside])
    assert not torch.isclose(out, scene.content)[..., ~outside].all(), "inside, nothing happened"


def test_every_level_takes_the_content_outside(scene):
    """Eq. 7 at each step: what the UNet is given outside is the content's own latent at that level."""
    seen = []
    clone = scene.model.clone()
    clone.add_wrapper_with_key(
        "diffusion_model", "seen", lambda executor, x, *a, **k: (seen.append(x.clone()), executor(x, *a, **k))[1]
    )
    mask = torch.zeros(SIZE)
    mask[2:5, 3:9] = 1.0
    scene.sample(clone, styles=scene.styles(cells(mask)))
    assert len(seen) == 4
    for x, z in zip(seen, scene.trajectory.latents, strict=False):
        torch.testing.assert_close(x[:1, :, mask == 0], z[..., mask == 0], rtol=0, atol=2e-6)
    assert (seen[2][:1] - scene.trajectory.latents[2])[..., mask == 1].abs().max() > 1e-3


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (128, 192), (7, 5)])
def test_masks_of_any_resolution_are_resized_by_area(scene, size):
    mask = torch.rand(1, *size, generator=scene.generator)
    expected = scene.pack.core.masks.mask.resize_by_area(mask[0], *SIZE)
    given = scene.sample(styles=scene.styles(mask), outside="content")
    assert torch.equal(given, scene.sample(styles=scene.styles(expected[None]), outside="content"))


def test_growth_and_feather_are_in_pixels_of_the_picture(scene):
    """Eight pixels are one latent pixel, whatever the mask's own resolution."""
    small, large = torch.zeros(1, 32, 48), torch.zeros(1, 64, 96)
    small[:, 12:20, 16:28], large[:, 16:48, 24:64] = 1.0, 1.0
    grown = scene.sample(styles=scene.styles(small), mask_grow=8)
    direct = scene.sample(styles=scene.styles(scene.pack.core.masks.mask.grow(cells_of(small), 8)[None]))
    assert torch.equal(grown, direct)
    soft = scene.sample(styles=scene.styles(large), mask_feather=6)
    assert not torch.equal(soft, scene.sample(styles=scene.styles(large)))


def cells_of(small):
    return small[0].repeat_interleave(2, 0).repeat_interleave(2, 1)


def test_a_second_run_is_the_same(scene):
    a, b = masks_of("soft", scene)
    first = scene.sample(styles=scene.styles(cells(a), cells(b)))
    assert torch.equal(first, scene.sample(styles=scene.styles(cells(a), cells(b))))


def test_other_packs_see_a_plain_run(scene):
    """cond_or_uncond and the guidance hooks are those of two conditionings, whether or not branches share a batch.

    With somebody else's patch in the network each branch is an evaluation of its own.
    """
    seen, fused = set(), []
    clone = scene.model.clone()

    def unet(executor, x, t, context, y, control, options, **kwargs):
        seen.add((x.shape[0], tuple(options["cond_or_uncond"])))
        return executor(x, t, context, y, control, options, **kwargs)

    clone.add_wrapper_with_key("diffusion_model", "watch", unet)
    clone.set_model_sampler_post_cfg_function(lambda args: (fused.append(args["uncond_denoised"]), args["denoised"])[1])
    left = torch.zeros(1, 64, 96)
    left[..., :48] = 1
    out = scene.sample(clone, styles=scene.styles(left, 1 - left))
    assert seen == {(4, (1, 0, 1, 0))}
    assert len(fused) == 4
    seen.clear()
    called = []
    clone.set_model_unet_function_wrapper(
        lambda apply, args: (
            called.append(tuple(args["cond_or_uncond"])),
            apply(args["input"], args["timestep"], **args["c"]),
        )[1]
    )
    apart = scene.sample(clone, styles=scene.styles(left, 1 - left))
    assert seen == {(2, (1, 0))}
    assert called == [(1, 0)] * 8
    assert len(fused) == 8
    assert torch.equal(out, scene.sample(styles=scene.styles(left, 1 - left)))
    torch.testing.assert_close(apart, out, rtol=1e-4, atol=1e-3)


def test_nothing_stays_on_the_model(scene):
    before = state_of(scene.model)
    a, b = masks_of("overlapping", scene)
    scene.sample(styles=scene.styles(cells(a), cells(b)), outside="regenerate")
    assert state_of(scene.model) == before
    comfy.model_management.unload_all_models()


def test_styles_are_not_changed_by_a_run(scene):
    a, b = masks_of("overlapping", scene)
    styles = scene.styles(cells(a), cells(b))
    copies = [s.mask.clone() for s in styles], [{k: v.clone() for k, v in s.lora.items()} for s in styles]
    scene.sample(styles=styles, mask_grow=3, mask_feather=5)
    assert all(torch.equal(s.mask, m) for s, m in zip(styles, copies[0], strict=True))
    for style, lora in zip(styles, copies[1], strict=True):
        assert all(torch.equal(style.lora[k], v) for k, v in lora.items())
