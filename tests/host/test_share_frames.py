"""Share Attention across Frames under the pack's sampler and the host's: who looks at whom, on what else is patched."""

from __future__ import annotations

import apply_bench
import pytest
import torch
from test_frames import Clip, gap

LOOKINGS = ("first", "first and previous", "all")


@pytest.fixture
def clip(pack, seed):
    return Clip(pack, seed)


def sharing(pack, model, look_at="first", layers="all"):
    return pack.pipeline.share_frames.ShareFrames.execute(model=model, look_at=look_at, layers=layers).args[0]


def same(latents):
    """The first frame as often as there are frames."""
    return latents[:1].expand_as(latents).clone()


def run(clip, model, latents):
    """The host's euler from these latents, as they are."""
    trajectory, *_ = clip.inverted(latents)
    return apply_bench.at_own_levels(model, trajectory, clip.positive, clip.negative)


@pytest.mark.parametrize("look_at", LOOKINGS)
def test_equal_frames_stay_as_they_are(clip, measured, look_at):
    frames = same(clip.latents)
    plain, ours = run(clip, clip.model, frames), run(clip, sharing(clip.pack, clip.model, look_at), frames)
    measured("equal frames, shared against plain, relative", gap(ours, plain), at_most=1e-4)


def test_the_first_frame_stays_and_the_others_follow(clip, measured):
    plain, ours = run(clip, clip.model, clip.latents), run(clip, sharing(clip.pack, clip.model), clip.latents)
    measured("first frame, shared against plain, relative", gap(ours[:1], plain[:1]), at_most=1e-4)
    assert gap(ours[1:], plain[1:]) > 1e-3


def test_one_frame_is_untouched(clip):
    one = clip.latents[:1]
    assert torch.equal(run(clip, sharing(clip.pack, clip.model, "all"), one), run(clip, clip.model, one))


def test_injection_on_top(clip, measured):
    trajectory, *_ = clip.inverted(clip.latents)
    features = clip.captured(trajectory)
    shared = Shared(clip)
    plain, ours = clip.sampled(features), shared.sampled(features)
    measured("first frame, injected, shared against plain, relative", gap(ours[:1], plain[:1]), at_most=1e-4)
    assert gap(ours[1:], plain[1:]) > 1e-3
    applied = apply_bench.injected(clip.pack, shared.model, features)
    theirs = apply_bench.at_own_levels(applied, trajectory, clip.positive, clip.negative)
    measured("sampler against Apply Injection, relative", gap(ours, theirs), at_most=1e-4)


class Shared(Clip):
    """A clip's model, sharing."""

    def __init__(self, clip) -> None:
        self.__dict__.update(clip.__dict__)
        self.model = sharing(clip.pack, clip.model)


@pytest.mark.parametrize(
    ("at_once", "words"),
    [
        (0, "all 3 frames share attention"),
        (2, "frames share attention in groups of 2, not across them: frames_at_once is 2"),
        (1, "frames do not share attention: frames_at_once is 1"),
    ],
)
def test_the_sampler_says_which_frames_share(clip, at_once, words):
    features = clip.captured(clip.inverted(clip.latents)[0])
    assert words in said(clip, sharing(clip.pack, clip.model), features, at_once)
    assert not [line for line in said(clip, clip.model, features, at_once) if "share attention" in line]


def test_the_guider_says_it_too_and_one_frame_shares_nothing(clip):
    features = clip.captured(clip.inverted(clip.latents)[0])
    node, model = clip.pack.pipeline.guider.InjectedLoRAGuider, sharing(clip.pack, clip.model)
    wired = {
        "positive": clip.positive,
        "negative": clip.negative,
        "cfg": 2.0,
        "lora_name": "none",
        "lora_strength": 1.0,
        "preset": {"preset": "paper 2026"},
    }
    assert "all 3 frames share attention" in node.execute(model=model, features=features, **wired).ui["text"][0]
    one = features.frames(0, 1)
    assert "share attention" not in node.execute(model=model, features=one, **wired).ui["text"][0]


def said(clip, model, features, at_once):
    """The sampler's words."""
    out = clip.pack.pipeline.sampler.InjectedLoRASampler.execute(
        model=model, features=features, positive=clip.positive, negative=clip.negative, cfg=1.0, lora_name="none",
        lora_strength=1.0, preset={"preset": "paper 2026"}, frames_at_once=at_once,
    )  # fmt: skip
    return out.ui["text"][0].splitlines()


def test_another_packs_replacement_is_called(clip):
    calls = []

    def replacement(q, k, v, extra_options):
        calls.append((k.shape[1], q.shape[1]))
        return q

    theirs = clip.model.clone()
    layer = max(clip.pack.host.model.layout_of(theirs).layers("self-attention"))
    theirs.set_model_attn1_replace(replacement, "output", layer)
    run(clip, sharing(clip.pack, theirs), clip.latents)
    assert calls
    assert all(keys == 2 * queries for keys, queries in calls)


def test_the_model_wired_in_is_not_changed(clip):
    before = run(clip, clip.model, clip.latents)
    sharing(clip.pack, clip.model, "all")
    assert torch.equal(run(clip, clip.model, clip.latents), before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"look_at": "last"}, "look_at must be one of first, first and previous, all, got 'last'"),
        ({"layers": ""}, "layers: none are named, so nothing would be shared"),
        ({"layers": "99"}, "self-attention layers 99 do not exist in this UNet"),
        ({"layers": "x"}, "layers must be written like"),
    ],
)
def test_refusals(clip, changes, words):
    with pytest.raises(ValueError, match=words):
        sharing(clip.pack, clip.model, **changes)


def test_auto_is_refused_before_the_run(pack):
    assert "'auto' is not taken here" in pack.pipeline.share_frames.ShareFrames.validate_inputs(layers="auto")
