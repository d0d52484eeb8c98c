"""Training-free styles: whole runs against loops over diffusers' UNet, masks, sizes, storage, refusals, traces."""

from __future__ import annotations

import comfy.model_management
import diffusers
import looking
import pytest
import reference
import steps
import tiny
import torch
from comfy.ldm.modules.attention import optimized_attention
from probes import Ending, counting, state_of

STEPS = 4
LAYERS = {"small": (2, 3), "sd15": (6, 7, 8, 9, 10, 11), "sd21": (6, 7, 8, 9, 10, 11), "sdxl": (2, 3)}
STYLE_ID = {"method": "StyleID", "query_blend": 0.75, "temperature": 1.5, "adain_start": True}
NOT_INJECTED = {"feature_steps": 0, "attention_steps": 0, "attention_mode": "fixed"}


def shared(mode: str = "extend", normalise: bool = True) -> dict:
    return {"method": "shared attention", "mode": mode, "normalise": normalise}


def written(layers) -> str:
    return ",".join(map(str, layers))


class Scene:
    """A model, a content, and a style's picture of another size, each with its capture."""

    def __init__(self, pack, seed, kind="small", model=None, storage="memory", size=(8, 12), style=(8, 16)) -> None:
        self.pack, self.layers = pack, LAYERS[kind]
        self.model = tiny.make_model(kind, seed=seed) if model is None else model
        xl = kind == "sdxl"
        self.empty, self.positive, self.negative = (tiny.make_prompt(seed + i, sdxl=xl) for i in range(3))
        generator = torch.Generator().manual_seed(seed)
        self.latents = [torch.randn(1, 4, *s, generator=generator) * 0.8 / 0.18215 for s in (size, style)]
        self.paths = [steps.invert(pack, self.model, {"samples": z}, self.empty) for z in self.latents]
        self.features = self.capture(0, storage)
        self.style = self.capture(1, storage, values=True)

    def capture(self, which, storage="memory", layers=None, **changes):
        layers = {"self_attention_layers": written(self.layers if layers is None else layers), **changes}
        return steps.capture(self.pack, self.model, self.paths[which][0], self.empty, storage=storage, **layers)

    def styles(self, method=STYLE_ID, **changes):
        """One training-free style; of "plain", a style of the base model."""
        if method == "plain":
            plain = {"positive": self.positive, **changes, "injection": steps.injection(self.pack, 0.0, 0.0)}
            return steps.chain(self.pack, plain)
        settings = {"style_features": self.style, "positive": self.positive, "layers": "all", **changes}
        return self.pack.pipeline.style_from_features.StyleFromFeatures.execute(method=method, **settings).args[0]

    def sample(self, styles=None, model=None, cfg=1.0, **changes):
        windows = {} if {"feature_steps", "injection"} & changes.keys() else NOT_INJECTED
        return steps.sample(
            self.pack, model or self.model, self.features, self.positive, self.negative,
            styles=styles, cfg=cfg, **windows, **changes,
        )  # fmt: skip

    def predicted(self, x, sigma, styles, cfg=1.0):
        """x0 of the guider with these styles, nothing of the content injected but what they say."""
        guider = steps.guider(
            self.pack, self.model, self.features, self.positive, self.negative, cfg, styles=styles, **NOT_INJECTED
        )[0]
        return steps.predicted(self.pack, guider, x, sigma)


@pytest.fixture
def scene(pack, seed):
    return Scene(pack, seed)


def relative(ours, theirs) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


WHOLE_RUNS = [
    ("small", False, STYLE_ID, 1.0),
    ("sd15", False, STYLE_ID, 3.0),
    ("sd21", True, STYLE_ID, 1.0),
    ("small", False, shared("swap", False), 3.0),
    ("sd15", False, shared("extend", True), 1.0),
    ("sd21", True, shared("swap", True), 3.0),
]


@pytest.mark.parametrize(("kind", "velocity", "method", "cfg"), WHOLE_RUNS)
def test_a_whole_run_is_that_of_diffusers_written_out(pack, seed, measured, kind, velocity, method, cfg):
    """Both inversions, both captures, AdaIN of the start and the sampling; the style's picture has another size."""
    unet, model = reference.pair(kind, seed, velocity)
    ours = Scene(pack, seed, kind, model, size=(8, 8), style=(8, 16))
    result = ours.sample(ours.styles(method), cfg=cfg) * 0.18215
    layers, scheduler = LAYERS[kind], reference.scheduler(diffusers.DDIMScheduler, STEPS)
    at = looking.watched(unet, layers)
    prompts = [p[0][0] for p in (ours.empty, ours.positive, ours.negative)]
    invert = reference.inverted_velocity if velocity else reference.inverted
    levels = [[z.float() for z in invert(unet, z * 0.18215, prompts[0], STEPS)] for z in ours.latents]
    content, style = (looking.held_along(unet, at, path, prompts[0], scheduler.timesteps) for path in levels)
    start = levels[0][-1]
    if method["method"] == "StyleID":
        changes = [looking.style_id(c, s, 0.75, 1.5) for c, s in zip(content, style, strict=True)]
        start = looking.adain(start, levels[1][-1], (2, 3))
    else:
        changes = [looking.shared(s, method["mode"] == "extend", method["normalise"]) for s in style]
    theirs = looking.sampled(unet, at, changes, start, prompts[1], prompts[2], cfg, velocity)
    measured(f"{kind}, {method['method']}, cfg {cfg:g}: a whole run, relative", relative(result, theirs), at_most=1e-4)
    plain = ours.sample(cfg=cfg) * 0.18215
    assert relative(plain, theirs) > 1e-2, "the style has no effect: the comparison says nothing"


@pytest.mark.parametrize("method", [STYLE_ID, shared("extend")])
def test_sdxl_in_all_its_depth(pack, seed, measured, method):
    """The host's own euler sampler under patches of every transformer block, with the maps written out."""
    scene = Scene(pack, seed, "sdxl", size=(8, 8), style=(8, 16))
    ours = scene.sample(scene.styles(method))
    sites = [s for s in scene.style.request.attention_sites if s.kind == "self-attention"]
    assert max(s.depth for s in sites) == 1
    at = {"step": -1}
    clone = scene.model.clone()

    def count(executor, *args, **kwargs):
        at["step"] += 1
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key("diffusion_model", "count", count)

    def patched(site):
        def patch(q, k, v, options):
            named = [{"": capture.at(at["step"])[site]} for capture in (scene.features, scene.style)]
            if method is STYLE_ID:
                change = looking.style_id(*named, 0.75, 1.5)
            else:
                change = looking.shared(named[1], True, True)
            q, k, v = change("", q, k, v)
            return reference.apply_map(reference.explicit_attention(q, k, options["n_heads"]), v)

        return patch

    for site in sites:
        clone.set_model_attn1_replace(patched(site), "output", site.layer, site.depth)
    x_T = [path[1]["samples"] for path in scene.paths]
    start = looking.adain(x_T[0], x_T[1], (2, 3)) if method is STYLE_ID else x_T[0]
    theirs = steps.sample(
        pack, clone, scene.features, scene.positive, scene.negative, cfg=1.0, **NOT_INJECTED,
        start_latent={"samples": start},
    )  # fmt: skip
    measured("SDXL, every block, relative", relative(ours, theirs), at_most=1e-4)


def test_storage_says_nothing_about_the_picture(pack, seed, measured):
    """Recomputed: one more row of the content's and one of the style's own size per step."""
    results = {}
    for storage in ("memory", "disk", "recompute"):
        scene = Scene(pack, seed, storage=storage)
        model, rows = counting(scene.model)
        scene.features = scene.features._replace(source=scene.features.source._replace(model=model))
        scene.style = scene.style._replace(source=scene.style.source._replace(model=model))
        results[storage] = scene.sample(scene.styles(), model)
        assert len(rows) == STEPS * (3 if storage == "recompute" else 1)
    assert torch.equal(results["memory"], results["disk"])
    measured("recomputed", relative(results["recompute"], results["memory"]), at_most=1e-5)


def test_on_its_own_path_the_content_as_its_own_style_is_the_content(scene, measured):
    """At z_t of any step its own k, v and queries are what is there already, the softmax as it is."""
    trajectory, scene.style = scene.paths[0][0], scene.capture(0, values=True)
    for method in ({**STYLE_ID, "temperature": 1.0}, shared("swap", True), shared("extend", True)):
        worst = 0.0
        for z, t in zip(trajectory.latents, trajectory.schedule.timesteps, strict=False):
            sigma = trajectory.schedule.sigma(t)
            at = z * (1 + sigma**2) ** 0.5, sigma
            own, plain = (scene.predicted(*at, styles=scene.styles(m, positive=scene.empty)) for m in (method, "plain"))
            worst = max(worst, relative(own, plain))
        measured(f"{method['method']}, largest of all steps, relative", worst, at_most=1e-5)


def test_masks_all_none_and_half(scene):
    ones, half = torch.ones(1, 64, 96), torch.ones(1, 64, 96)
    half[..., :48] = 0.0
    whole = scene.sample(scene.styles())
    assert torch.equal(scene.sample(scene.styles(mask=ones)), whole)
    content = scene.model.model.process_latent_out(scene.paths[0][0].content)
    assert torch.equal(scene.sample(scene.styles(mask=ones * 0)), content)
    out = scene.sample(scene.styles(mask=half))
    assert torch.equal(out[..., :6], content[..., :6])
    assert (out[..., 6:] - content[..., 6:]).abs().max() > 1e-2


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_two_styles_of_other_sizes_and_a_lora_share_a_picture(scene, measured, cfg):
    """Branches of one batch, each with its own number of keys, as each of them alone predicts (eq. 8)."""
    left = torch.zeros(1, 64, 96)
    left[..., :48] = 1.0
    lora = steps.random_lora(scene.pack, scene.model, 5, size=0.3)
    methods = (shared("extend"), {**STYLE_ID, "adain_start": False})
    chain = scene.styles(methods[0], mask=left, lora=lora)
    chain = scene.styles(methods[1], previous=chain)
    sigma = scene.features.trajectory.schedule.sigma(501)
    x = torch.randn(1, 4, 8, 12) * (1 + sigma**2) ** 0.5

    alone = scene.styles(methods[0], lora=lora), scene.styles(methods[1])
    both, one, other = (scene.predicted(x, sigma, styles, cfg) for styles in (chain, *alone))
    expected = torch.cat([one[..., :6], other[..., 6:]], -1)
    measured("the fused prediction, relative", relative(both, expected), at_most=1e-5)
    assert relative(one, other) > 1e-3


def test_a_window_is_the_steps_it_says(scene):
    late = scene.sample(scene.styles(shared(), start_percent=0.5))
    assert not torch.equal(late, scene.sample(scene.styles(shared())))
    scene.style = scene.capture(1, values=True, attention_steps=2)
    early = scene.sample(scene.styles(shared(), end_percent=0.5))
    assert not torch.equal(early, late)
    with pytest.raises(ValueError, match=r"step 2, self-attention of layer 2: .*attention_end_percent"):
        scene.styles(shared())


def test_the_start_of_regions_and_of_a_wired_latent(scene):
    ones, x_T = torch.ones(1, 64, 96), scene.paths[0][1]
    node = scene.pack.pipeline.adain_latent.AdaINLatent
    start = node.execute(content=x_T, style=scene.paths[1][1], strength=1.0).args[0]
    ours = scene.sample(scene.styles())
    wired = scene.sample(scene.styles({**STYLE_ID, "adain_start": False}), start_latent=start)
    torch.testing.assert_close(ours, wired, rtol=1e-4, atol=1e-4)
    kept = scene.sample(scene.styles(), start_latent=x_T)
    assert torch.equal(kept, scene.sample(scene.styles({**STYLE_ID, "adain_start": False})))
    for mask in (ones, ones * 0):
        out = node.execute(content=x_T, style=scene.paths[1][1], strength=1.0, mask=mask).args[0]["samples"]
        assert torch.equal(out, start["samples"] if mask.any() else x_T["samples"])


def test_notes_say_where_the_start_stays(scene):
    inputs = {"model": scene.model, "features": scene.features, "positive": scene.positive, "cfg": 1.0,
              "negative": scene.negative, "styles": scene.styles(), "lora_name": "none", "lora_strength": 1.0,
              "preset": {"preset": "paper 2026"}}  # fmt: skip
    (text,) = scene.pack.pipeline.guider.InjectedLoRAGuider.execute(**inputs).ui["text"]
    assert "note: adain_start of the style is not applied; a guider cannot change its start" in text
    out = scene.pack.pipeline.sampler.InjectedLoRASampler.execute(**inputs, start_latent=scene.paths[0][1])
    assert "StyleID: query blend 0.75, temperature 1.5, AdaIN of the start, nothing of the content" in out.ui["text"][0]
    assert "start_latent is wired: it is taken as it is" in out.ui["text"][0]


@pytest.mark.parametrize(("how", "at"), [("completes", 0), ("error", 2), ("interrupt", 2)])
def test_nothing_is_left_on_the_model_and_a_second_run_is_the_same(scene, monkeypatch, how, at):
    first, before = scene.sample(scene.styles(), cfg=3.0), state_of(scene.model)
    ending = Ending(monkeypatch)
    ending.plan(how, at)
    if how == "completes":
        scene.sample(scene.styles(), cfg=3.0)
    else:
        stop = RuntimeError if how == "error" else comfy.model_management.InterruptProcessingException
        with pytest.raises(stop):
            scene.sample(scene.styles(), cfg=3.0)
    ending.plan("completes", 0)
    assert state_of(scene.model) == before
    assert torch.equal(scene.sample(scene.styles(), cfg=3.0), first)


def test_a_style_that_does_not_fit_is_refused_before_any_work(scene, pack, seed):
    model, rows = counting(scene.model)
    queries = scene.capture(0, layers=(3,))
    longer = steps.invert(pack, scene.model, {"samples": scene.latents[1]}, scene.empty, steps=5)[0]
    other = Scene(pack, seed, "sd15", size=(8, 8), style=(8, 8))
    styles = scene.styles()
    scene.features, kept = queries, scene.features
    with pytest.raises(ValueError, match="style 1: step 0, self-attention of layer 2: query_blend takes the content's"):
        scene.sample(styles, model)
    scene.features, scene.style = kept, scene.capture(0, values=False)
    with pytest.raises(ValueError, match="style_features: kept without values"):
        scene.styles()
    scene.style = steps.capture(pack, scene.model, longer, scene.empty, values=True, attention_steps=5)
    with pytest.raises(ValueError, match=r"style_features of style 1: captured over 5 steps, .* over 4"):
        scene.sample(scene.styles(), model)
    scene.style = other.style
    with pytest.raises(ValueError, match="style_features of style 1"):
        scene.sample(scene.styles(), model)
    assert rows == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": None}, "method must be one of StyleID, shared attention, got None"),
        ({"method": {"method": "magic"}}, "method must be one of .*got 'magic'"),
        ({"layers": "6;7"}, "layers must be written like"),
        ({"layers": "1-3"}, "layers: 1 are to be used of style_features"),
        ({"strength": float("nan")}, "strength of style 1 must be a number"),
        ({"mask": torch.full((1, 8, 8), 2.0)}, "mask of style 1: mask values lie in 0..1"),
    ],
)
def test_settings_that_are_none_are_refused_by_name(scene, changes, words):
    with pytest.raises(ValueError, match=words):
        scene.styles(**{"method": STYLE_ID, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strength": float("nan")}, "strength must be a number in 0..1"),
        ({"style": {"samples": torch.zeros(1, 16, 8, 8)}}, "style: a latent of 4 channels is expected.*got 16"),
        ({"style": {"samples": torch.zeros(2, 4, 8, 8)}}, r"style: one picture's latent .*got \[2, 4, 8, 8\]"),
        ({"content": {"samples": torch.full((1, 4, 8, 8), torch.inf)}}, "content holds values that are not finite"),
        ({"content": None}, "content: a LATENT of floating point"),
        ({"mask": torch.full((1, 8, 8), 2.0)}, "mask: mask values lie in 0..1"),
    ],
)
def test_adain_latent_refuses_by_name(scene, changes, words):
    wired = {"content": scene.paths[0][1], "style": scene.paths[1][1], "strength": 1.0, **changes}
    with pytest.raises(ValueError, match=words):
        scene.pack.pipeline.adain_latent.AdaINLatent.execute(**wired)


def test_another_packs_attention_gets_the_styles_keys_and_its_own_rows(scene):
    """Rows of other numbers of keys come to it apart, each call with the chunks that it is about."""
    seen = []

    def patch(q, k, v, options):
        seen.append((len(q), tuple(options["cond_or_uncond"]), k.shape[1]))
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    theirs = scene.model.clone()
    theirs.set_model_attn1_replace(patch, "output", 2)
    left = torch.zeros(1, 64, 96)
    left[..., :48] = 1.0
    chain = scene.styles(shared("extend"), mask=left)
    chain = scene.styles(shared("swap"), previous=chain)
    ours = scene.sample(chain, theirs, cfg=3.0)
    torch.testing.assert_close(ours, scene.sample(chain, cfg=3.0), rtol=1e-4, atol=1e-3)
    assert all(rows == len(chunks) for rows, chunks, _ in seen)
    assert {keys for *_, keys in seen} == {96 + 128, 128}
    assert {chunks for _, chunks, _ in seen} <= {(0,), (1,), (0, 1), (1, 0)}
