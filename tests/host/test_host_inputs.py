"""What users wire in is checked before the run: numbers, prompts, latents. NaN passes the host's own bounds."""

from __future__ import annotations

import math

import analysis_bench as ab
import pytest
import tiny
import torch
from node_bench import EMPTY, PICTURE, STYLE, refused, table

pytest_plugins = ("guards",)

EMBEDDING = EMPTY[0][0]


def prompt(embedding=EMBEDDING, **options):
    return [[embedding, options]]


def samples(*shape, value=1.0):
    return {"samples": torch.full(shape, value)}


SOURCE = [
    ({"source": []}, "source: ", "got 0", "CLIP Text Encode"),
    ({"source": None}, "source: ", "got None", "CLIP Text Encode"),
    ({"source": [[EMBEDDING]]}, "source: ", "[embedding, options]", "got list"),
    ({"source": ["text"]}, "source: ", "[embedding, options]", "got str"),
    ({"source": prompt(EMBEDDING[0])}, "source: ", "[1, tokens, width]", "got [77, 32]"),
    ({"source": prompt(EMBEDDING[:0])}, "source: ", "got [0, 77, 32]"),
    ({"source": prompt(EMBEDDING[:, :0])}, "source: ", "got [1, 0, 32]"),
    ({"source": prompt(torch.cat([EMBEDDING] * 2))}, "source: ", "got [2, 77, 32]", "instead of a batch"),
    ({"source": prompt(EMBEDDING.long())}, "source: ", "[1, tokens, width]"),
    ({"source": prompt(EMBEDDING[..., :16])}, "source: ", "width 32, got 16", "this checkpoint's own CLIP"),
    ({"source": prompt(EMBEDDING * math.nan)}, "source holds", "not finite"),
    ({"source": prompt(EMBEDDING * 1e30)}, "source holds values up to", "e+30", "6.55e+04"),
    ({"source": prompt(pooled_output=torch.full((1, 32), math.inf))}, "source, pooled_output holds", "not finite"),
    ({"source": prompt(start_percent=0.5)}, "source: ", "50 % to 100 %", "ConditioningSetTimestepRange"),
    ({"source": prompt(end_percent=0.25)}, "source: ", "0 % to 25 %", "ConditioningSetTimestepRange"),
    ({"source": prompt(clip_start_percent=0.0, clip_end_percent=0.5)}, "source: ", "0 % to 50 %"),
    ({"source": prompt(area=(8, 8, 0, 0), strength=1.0)}, "source: ", "with area", "Set Area"),
    ({"source": prompt(mask=torch.zeros(1, 16, 16))}, "source: ", "with mask", "Set Mask"),
]
LATENT = [
    ({"latent": {}}, "latent: ", "'samples'", "got NoneType", "VAE Encode"),
    ({"latent": None}, "latent: ", "'samples'", "VAE Encode"),
    ({"latent": {"samples": [1.0]}}, "latent: ", "got list"),
    ({"latent": {"samples": torch.zeros(1, 4, 16, 16, dtype=torch.int64)}}, "latent: ", "torch.int64"),
    ({"latent": samples(1, 4, 0, 0)}, "latent: ", "at least 64 pixels", "latent of 0 x 0"),
    ({"latent": samples(1, 4, 1, 1)}, "latent: ", "latent of 1 x 1", "8 x 8", "larger picture"),
    ({"latent": samples(1, 4, 7, 16)}, "latent: ", "latent of 16 x 7"),
    ({"latent": samples(1, 4, 16, 16, value=1e30)}, "latent holds values up to 1e+30", "beyond 1e+06"),
]


@pytest.mark.parametrize(**table(SOURCE))
def test_a_source_that_would_mean_something_else_is_refused(pack, bench, changes, words):
    with refused(bench, *words):
        bench.invert(**changes)
    with refused(bench, *words):
        ab.report(pack, bench.model, tiny.make_latent(), changes["source"])


@pytest.mark.parametrize(**table(LATENT))
def test_a_latent_that_is_no_picture_is_refused(pack, bench, changes, words):
    with refused(bench, *words):
        bench.invert(**changes)
    with refused(bench, *words):
        ab.report(pack, bench.model, changes["latent"], EMPTY)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (8, 40)])
def test_latents_of_any_other_size_and_format_work(bench, dtype, size):
    latent = {"samples": torch.randn(1, 4, *size).to(dtype)}
    assert bench.invert(latent=latent)[1]["samples"].isfinite().all()


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
def test_the_smallest_latent_runs_on_every_unet(bench, kind):
    model, source = tiny.make_model(kind), tiny.make_prompt(1, sdxl=kind == "sdxl")
    assert bench.invert(model=model, source=source, latent=samples(1, 4, 8, 8))[1]["samples"].isfinite().all()


def test_a_range_that_covers_everything_is_no_range(bench):
    plain = bench.invert()[1]["samples"]
    whole = bench.invert(source=prompt(start_percent=0.0, end_percent=1.0))[1]["samples"]
    assert torch.equal(whole, plain)


POOLED = [({}, "got none"), ({"pooled_output": torch.zeros(1, 1280)}, "got [1, 1280]")]


@pytest.mark.parametrize(**table([({"options": o}, w) for o, w in POOLED]))
def test_sdxl_needs_its_pooled_embedding(bench, changes, words):
    with refused(bench, "source: ", "pooled embedding [1, 32]", *words):
        bench.invert(model=tiny.make_model("sdxl"), source=prompt(**changes["options"]))


def test_what_a_latent_carries_and_the_pack_does_not_use_is_said(pack, bench):
    latent = {**tiny.make_latent(), "noise_mask": torch.ones(1, 128, 128), "batch_index": [3]}
    notes = pack.host.checks.latents.latent_notes(latent)
    assert [any(word in note for note in notes) for word in ("noise mask", "batch index")] == [True, True]
    assert pack.host.checks.latents.latent_notes(tiny.make_latent()) == []
    node = pack.pipeline.invert.DDIMInvert
    settings = {"steps": 2, "spacing": "leading", "refinement": 0, "reconstruct": False}
    out = node.execute(model=bench.model, latent=latent, source=EMPTY, **settings)
    assert all(note in out.ui["text"][0] for note in notes)
    assert all(note in ab.report(pack, bench.model, latent, EMPTY)[0][2] for note in notes)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 4.001, -5, "1", None])
def test_a_number_out_of_its_bounds_is_refused_by_name(pack, bad):
    with pytest.raises(ValueError, match=r"cfg must be a number in -4\.\.4, got "):
        pack.host.checks.numbers.require_number(bad, "cfg", -4.0, 4.0)


@pytest.mark.parametrize("good", [-4, 0.0, 4.0])
def test_a_number_within_its_bounds_comes_back(pack, good):
    assert pack.host.checks.numbers.require_number(good, "cfg", -4.0, 4.0) == good


@pytest.mark.parametrize(("text", "word"), [("a" * 201, "got 201"), ("\ud800", "lone surrogate")])
def test_a_text_that_cannot_be_shown_is_refused(pack, text, word):
    with pytest.raises(ValueError, match=word) as caught:
        pack.host.checks.text.require_text(text, "name")
    assert str(caught.value).startswith("name ")
    assert str(caught.value).isascii()


def gap(pack, model, conditioning):
    schedule = pack.host.model.schedule_of(model, 10)
    sigmas = [schedule.sigma(t) for t in schedule.timesteps]
    pack.host.checks.timesteps.require_covered(conditioning, model, sigmas, "negative")


def test_prompts_that_leave_a_step_without_one_are_refused(pack, bench):
    first, second = prompt(start_percent=0.0, end_percent=0.5)[0], prompt(start_percent=0.5, end_percent=1.0)[0]
    for conditioning in (EMPTY, [first, second], [first, STYLE[0]], prompt(start_percent=0.0, end_percent=1.0)):
        gap(pack, bench.model, conditioning)
    for conditioning, step in (([first], 5), ([second], 0), (prompt(clip_start_percent=0.2, clip_end_percent=1.0), 0)):
        with pytest.raises(ValueError, match=f"negative: no prompt acts at step {step} of 10"):
            gap(pack, bench.model, conditioning)


def test_the_host_predicts_zeros_where_no_prompt_acts(bench):
    """Why gaps are refused: without a prompt in its range, KSampler's negative is no prediction at all."""
    from comfy.samplers import CFGGuider

    seen = {}

    def watch(args):
        seen.setdefault("uncond", args["uncond_denoised"].clone())
        return args["denoised"]

    model = bench.model.clone()
    model.set_model_sampler_post_cfg_function(watch)
    guider = CFGGuider(model)
    guider.set_conds(STYLE, prompt(start_percent=0.5, end_percent=1.0))
    guider.set_cfg(2.0)
    import comfy.samplers

    latent = tiny.make_latent()["samples"]
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    guider.sample(torch.randn_like(latent), latent, sampler, sigmas, disable_pbar=True)
    assert not seen["uncond"].any()


@pytest.mark.parametrize("batch", [PICTURE[:0], torch.zeros(1, 96, 80, 4), PICTURE * math.nan], ids=["0", "4", "nan"])
def test_style_pictures_are_checked(bench, batch):
    with refused(bench, "style_image"):
        bench.train(style_image=batch)


@pytest.mark.parametrize(("steps", "said"), [(4, True), (10, False)])
def test_invert_and_report_say_when_a_run_begins_far_from_noise(pack, bench, steps, said):
    settings = {"steps": steps, "spacing": "leading", "refinement": 0, "reconstruct": False}
    out = pack.pipeline.invert.DDIMInvert.execute(
        model=bench.model, latent=tiny.make_latent(), source=EMPTY, **settings
    )
    report = ab.report(pack, bench.model, tiny.make_latent(), EMPTY, steps=steps)[0][2]
    assert ["far from noise" in text for text in (out.ui["text"][0], report)] == [said, said]
