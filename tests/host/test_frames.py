"""A batch of contents through Invert, Capture, sampler, guider and Apply: each frame as it would be alone."""

from __future__ import annotations

import apply_bench
import pytest
import steps
import tiny
import torch
from probes import counting
from test_guider import custom

COUNT = 3
LEFT = torch.zeros(1, 64, 64)
LEFT[..., :32] = 1.0


class Clip:
    """A small model and three contents; ``whole``: all at once, ``alone``: each by itself."""

    def __init__(self, pack, seed, kind="small", velocity=False) -> None:
        self.pack, self.model = pack, tiny.make_model(kind, velocity=velocity, seed=seed)
        self.empty, self.positive, self.negative, self.other = (tiny.make_prompt(seed + i) for i in range(4))
        self.latents = tiny.make_latent(seed, 8, batch=COUNT)["samples"]
        self.lora = steps.random_lora(pack, self.model, seed, size=0.3)

    def inverted(self, latents, **changes):
        """(trajectory, x_T, reconstruction) of DDIM Invert."""
        return steps.invert(self.pack, self.model, {"samples": latents}, self.empty, **changes)

    def captured(self, trajectory, model=None, **changes):
        return steps.capture(self.pack, model or self.model, trajectory, self.empty, **changes)

    def sampled(self, features, **changes):
        return steps.sample(self.pack, self.model, features, self.positive, self.negative, **changes)

    def each(self, run):
        """What ``run(latents)`` makes of every content alone, one after the other."""
        return torch.cat([run(latent) for latent in self.latents.split(1)])


@pytest.fixture
def clip(pack, seed):
    return Clip(pack, seed)


def gap(ours, theirs) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("at_once", [0, 1, 2])
def test_inversion(clip, measured, at_once):
    trajectory, x_T, back = clip.inverted(clip.latents, reconstruct=True, frames_at_once=at_once)
    assert trajectory.frame_count == COUNT
    for level in range(5):
        alone = clip.each(lambda z, level=level: clip.inverted(z)[0].latents[level])
        measured(f"level {level} against one by one, relative", gap(trajectory.latents[level], alone), at_most=1e-5)
    alone = clip.each(lambda z: clip.inverted(z, reconstruct=True)[2]["samples"])
    measured("reconstruction against one by one, relative", gap(back["samples"], alone), at_most=1e-5)
    assert x_T["samples"].shape == clip.latents.shape


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("at_once", [0, 2])
def test_capture(clip, measured, storage, at_once):
    trajectory, *_ = clip.inverted(clip.latents)
    features = clip.captured(trajectory, storage=storage, frames_at_once=at_once)
    alone = [clip.captured(trajectory.frames(i, i + 1)) for i in range(COUNT)]
    worst = 0.0
    for step in range(4):
        for site, tensors in features.at(step).items():
            for j, tensor in enumerate(tensors):
                worst = max(worst, gap(tensor, torch.cat([one.at(step)[site][j] for one in alone])))
    measured("captured against one by one, relative", worst, at_most=1e-5)
    assert features.store.nbytes == sum(one.store.nbytes for one in alone)


@pytest.mark.parametrize("storage", ["memory", "disk", "recompute"])
@pytest.mark.parametrize("at_once", [0, 2])
def test_sampler(clip, measured, storage, at_once):
    trajectory, *_ = clip.inverted(clip.latents)
    features = clip.captured(trajectory, storage=storage)
    together = clip.sampled(features, lora=clip.lora, frames_at_once=at_once)
    alone = clip.each(lambda z: clip.sampled(clip.captured(clip.inverted(z)[0]), lora=clip.lora))
    measured("sampler against one by one, relative", gap(together, alone), at_most=1e-4)


@pytest.mark.parametrize("at_once", [0, 1])
@pytest.mark.parametrize("outside", ["content", "regenerate"])
def test_regions(clip, measured, outside, at_once):
    """The second style brings features of its own."""

    def run(latents, **changes):
        features = clip.captured(clip.inverted(latents)[0])
        own = clip.captured(clip.inverted(latents.flip(-1))[0])
        styles = steps.chain(
            clip.pack,
            {"lora": clip.lora, "positive": clip.positive, "mask": LEFT},
            {"positive": clip.other, "mask": LEFT.flip(-2) * 0.5, "features": own},
        )
        return clip.sampled(features, styles=styles, outside=outside, **changes)

    measured(
        "regions against one by one, relative", gap(run(clip.latents, frames_at_once=at_once), clip.each(run)), 1e-4
    )


@pytest.mark.parametrize("at_once", [0, 2])
@pytest.mark.parametrize("outside", ["content", "regenerate"])
def test_masks_of_each_frame(clip, measured, seed, outside, at_once):
    """One style with a mask for each frame, one with a mask for all."""
    masks = torch.rand(COUNT, 16, 16, generator=torch.Generator().manual_seed(seed)).round()

    def run(latents, own, **changes):
        features = clip.captured(clip.inverted(latents)[0])
        styles = steps.chain(
            clip.pack,
            {"lora": clip.lora, "positive": clip.positive, "mask": own},
            {"positive": clip.other, "mask": LEFT * 0.5},
        )
        return clip.sampled(features, styles=styles, outside=outside, **changes)

    together = run(clip.latents, masks, frames_at_once=at_once)
    pairs = zip(clip.latents.split(1), masks.split(1), strict=True)
    alone = torch.cat([run(latent, mask) for latent, mask in pairs])
    measured("masks of each frame against one by one, relative", gap(together, alone), at_most=1e-4)
    assert gap(run(clip.latents, masks.flip(0)), together) > 1e-3


def test_masks_of_each_frame_under_the_guider_and_apply(clip, measured, seed):
    masks = torch.rand(COUNT, 16, 16, generator=torch.Generator().manual_seed(seed)).round()
    trajectory, x_T, _ = clip.inverted(clip.latents)
    features = clip.captured(trajectory)
    styles = steps.chain(clip.pack, {"lora": clip.lora, "positive": clip.positive, "mask": masks})
    theirs = clip.sampled(features, styles=styles)
    guider, sigmas = steps.guider(clip.pack, clip.model, features, clip.positive, clip.negative, styles=styles)
    ours, _ = custom(None, guider, sigmas, latent=x_T)
    measured("guider against the sampler, relative", gap(ours, theirs), at_most=1e-5)
    patched = apply_bench.styled(clip.pack, clip.model, features, styles)
    applied = apply_bench.at_own_levels(patched, trajectory, clip.positive, clip.negative)
    measured("Apply Styles against the sampler, relative", gap(applied, theirs), at_most=1e-5)


@pytest.mark.parametrize(("kind", "velocity"), [("sd15", False), ("sdxl", True)])
def test_other_families(pack, seed, measured, kind, velocity):
    clip = Clip(pack, seed, kind, velocity)
    sdxl = kind == "sdxl"
    clip.empty, clip.positive, clip.negative = (tiny.make_prompt(seed + i, sdxl=sdxl) for i in range(3))
    layers = {"feature_layers": "4", "self_attention_layers": "3-5", "cross_attention_layers": "4"}

    def run(latents):
        return clip.sampled(
            clip.captured(clip.inverted(latents, steps=2)[0], **layers, attention_steps=2, feature_steps=2)
        )

    measured("sampler against one by one, relative", gap(run(clip.latents), clip.each(run)), at_most=1e-4)


def test_guider_and_apply(clip, measured):
    trajectory, x_T, _ = clip.inverted(clip.latents)
    features = clip.captured(trajectory)
    theirs = clip.sampled(features)
    guider, sigmas = steps.guider(clip.pack, clip.model, features, clip.positive, clip.negative)
    ours, _ = custom(None, guider, sigmas, latent=x_T)
    measured("guider against the sampler, relative", gap(ours, theirs), at_most=1e-5)
    patched = apply_bench.injected(clip.pack, clip.model, features)
    applied = apply_bench.at_own_levels(patched, trajectory, clip.positive, clip.negative)
    measured("Apply Injection against the sampler, relative", gap(applied, theirs), at_most=1e-5)
    with pytest.raises(ValueError, match=r"latent_image: \[2, 4, 8, 8\] does not fit Apply Injection.*\[3, 4, 8, 8\]"):
        apply_bench.ksampler(patched, clip.positive, clip.negative, {"samples": torch.zeros(2, 4, 8, 8)})


def test_evaluations_and_words(clip):
    counted, rows = counting(clip.model)
    clip.model = counted
    node = clip.pack.pipeline.invert.DDIMInvert
    out = node.execute(
        model=counted, latent={"samples": clip.latents}, source=clip.empty, steps=4, spacing="leading", refinement=0,
        reconstruct=True, frames_at_once=2,
    )  # fmt: skip
    assert rows == [2] * 4 + [1] * 4 + [2] * 4 + [1] * 4
    (words,) = out.ui["text"]
    assert "3 frames, 4 steps, 8 UNet evaluations" in words
    assert "dB (worst, frame " in words
    rows.clear()
    clip.sampled(clip.captured(out.args[0]), frames_at_once=2)
    assert rows == [3] * 4 + [4] * 4 + [2] * 4


def test_the_size_is_known_before_the_work(clip, pack, monkeypatch):
    """Stated exactly, and refused before the first evaluation when it does not fit."""
    trajectory, *_ = clip.inverted(clip.latents)
    said = []
    monkeypatch.setattr(
        pack.host.sampling.runs.host_text, "Counter", lambda name: said.append(name) or (lambda *_: None)
    )
    asked = {
        "feature_layers": "1,3",
        "self_attention_layers": "2-3",
        "cross_attention_layers": "2",
        "precision": "bf16",
    }
    features = clip.captured(trajectory, **asked)
    needed = pack.host.sampling.capture.bytes_needed(
        clip.model, features.request, trajectory.content, clip.empty, torch.bfloat16
    )
    assert needed == features.store.nbytes
    assert said == [f"{needed / 1e6:.0f} MB in memory for 3 frames, step"]
    counted, rows = counting(clip.model)
    monkeypatch.setattr(pack.host.sampling.capture, "room_in_memory", lambda wanted: wanted / 2)
    with pytest.raises(ValueError, match=r"storage: the capture of 3 frames needs .* GB, and memory has room for"):
        clip.captured(trajectory, counted, **asked)
    assert rows == []


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_frames_at_once_that_are_none(clip, value):
    with pytest.raises(ValueError, match="frames_at_once must be 0"):
        clip.inverted(clip.latents, frames_at_once=value)


def test_what_is_of_one_picture_says_so(clip, pack):
    trajectory, *_ = clip.inverted(clip.latents)
    style = clip.captured(trajectory, values=True)
    reference = pack.core.injection.reference
    with pytest.raises(ValueError, match="style_features: one style picture is expected, got a batch of 3"):
        reference.Reference(style, reference.StyleID())
    node = pack.evaluate.feature_pca.FeaturePCA
    with pytest.raises(ValueError, match="trajectory: one picture is looked at, got a batch of 3"):
        node.execute(
            model=clip.model, trajectory=trajectory, source=clip.empty, layers="2", timestep=540, lora_strength=1.0
        )
