"""Warping by optical flow, what two frames both show, and what is left over: closed forms and known motions."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.evaluation.consistency import HEADER, Steadiness, describe, step_of, table
from diffstyler_core.metrics.available import NotAvailable
from diffstyler_core.metrics.flow import optical_flow
from diffstyler_core.metrics.warping import seen_in_both, warp, warped_difference

SIDE = 96


def scene(seed, side=160):
    """[side, side, 3] of soft noise: detail at every place, none finer than a few pixels."""
    noise = torch.rand(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    finer = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(seed + 1))
    both = [
        torch.nn.functional.interpolate(x, (side, side), mode="bicubic", align_corners=False) for x in (noise, finer)
    ]
    return (0.7 * both[0] + 0.3 * both[1])[0].movedim(0, -1).clamp(0, 1)


def window(picture, left, top):
    return picture[top : top + SIDE, left : left + SIDE]


def steady(flow, height=12, width=15):
    return torch.tensor(flow, dtype=torch.float32).expand(height, width, 2)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, -2), (-4, 5)])
def test_whole_pixels_are_read_where_the_flow_leads(seed, right, down):
    picture = torch.rand(12, 15, 3, generator=torch.Generator().manual_seed(seed)).double()
    warped, inside = warp(picture, steady((right, down)))
    rolled = picture.roll((-down, -right), (0, 1))
    assert (warped - rolled)[inside].abs().max() < 1e-12
    assert inside.sum() == (12 - abs(down)) * (15 - abs(right))


def test_between_pixels_it_is_bilinear():
    ramp = torch.arange(15.0)[None, :, None].expand(12, 15, 1) / 15 + torch.arange(12.0)[:, None, None] / 7
    warped, inside = warp(ramp, steady((0.25, -0.5)))
    assert torch.allclose(warped[inside], (ramp + 0.25 / 15 - 0.5 / 7).double()[inside], atol=1e-7)
    assert inside.sum() == 11 * 14


@pytest.mark.parametrize(("back", "seen"), [((-3.0, 1.0), True), ((-2.5, 1.0), True), ((-1.0, 1.0), False)])
def test_what_comes_back_is_seen(back, seen):
    """There by (3, -1): misses of 0, 0.5 and 2 pixels against sqrt(0.01 (10 + |back|^2) + 0.5)."""
    found = seen_in_both(steady((3.0, -1.0)), steady(back))
    assert found[5, 5] == seen
    assert not found[0].any(), "the flow leads out above"
    assert not found[:, -3:].any(), "the flow leads out on the right"


def test_a_change_of_brightness_is_left_over_in_closed_form(seed):
    picture = torch.rand(12, 15, 3, generator=torch.Generator().manual_seed(seed)).double() * 0.5
    flow = steady((2, 1))
    following = picture.roll((1, 2), (0, 1)) + 0.25
    seen = torch.zeros(12, 15, dtype=torch.bool)
    seen[2:9, 3:10] = True
    found = warped_difference(picture, following, flow, seen)
    assert found.absolute == pytest.approx(0.25, abs=1e-12)
    assert found.square == pytest.approx(0.0625, abs=1e-12)
    assert warped_difference(picture, following - 0.25, flow, seen).absolute < 1e-12


def test_nothing_seen_has_no_figure():
    picture = torch.zeros(4, 4, 3)
    with pytest.raises(NotAvailable, match="no pixel of it is found again"):
        warped_difference(picture, picture, torch.zeros(4, 4, 2), torch.zeros(4, 4, dtype=torch.bool))


@pytest.mark.parametrize(("left", "top"), [(4, 0), (3, -2), (-6, 5)])
def test_the_flow_of_a_moving_window_is_its_motion(seed, left, top):
    whole = scene(seed)
    one, other = window(whole, 30, 30), window(whole, 30 + left, 30 + top)
    there, back = optical_flow(one, other), optical_flow(other, one)
    miss = (there + torch.tensor([left, top])).norm(dim=-1)
    seen = seen_in_both(there, back)
    assert seen.double().mean() > 0.7
    assert miss[seen].median() < 0.25


def test_a_moving_window_is_steady_and_noise_on_it_is_counted(seed):
    """The content's figure is near none; frames that are darker by turns, and noise, differ by what they were given."""
    whole, noise = scene(seed), torch.Generator().manual_seed(seed)
    clip = [window(whole, 30 + 3 * i, 30 + i) for i in range(4)]
    darker = [frame * 0.5 + 0.1 * (i % 2) for i, frame in enumerate(clip)]
    noisy = [frame + 0.1 * torch.randn(frame.shape, generator=noise) for frame in clip]
    own, turns, grain = (
        Steadiness([step_of((a[i], a[i + 1]), (clip[i], clip[i + 1])) for i in range(3)]).mean()
        for a in (clip, darker, noisy)
    )
    assert own.result == own.content
    assert own.content.absolute < 0.01
    assert turns.result.absolute == pytest.approx(0.1, rel=0.1)
    # 2 sigma / sqrt(pi) of two normal noises; bilinear reading between pixels dulls one
    assert 0.7 < grain.result.absolute / (0.2 / math.sqrt(math.pi)) < 1.05
    assert own.content == turns.content == grain.content


def test_the_rows_are_the_steps_and_a_cut_is_named(seed):
    frames = [window(scene(seed), 20, 20), window(scene(seed), 22, 20)]
    steps = [step_of(tuple(frames), tuple(frames)), NotAvailable("no pixel of it is found again in the next frame")]
    rows = table(Steadiness(steps)).splitlines()
    assert rows[0].split(",") == list(HEADER)
    assert len(rows) == 3
    assert rows[2] == "2,3,,,,,,no pixel of it is found again in the next frame"
    words = describe(Steadiness(steps))
    assert words.startswith("1 of 2 steps: warped-frame difference 0.00")
    assert words.endswith("frame 2 to 3: not available, no pixel of it is found again in the next frame")
    with pytest.raises(ValueError, match="content: no frame shows anything of the one before it"):
        Steadiness(steps[1:]).mean()


@pytest.mark.parametrize(("one", "other"), [((63, 80, 3), (63, 80, 3)), ((64, 80, 3), (64, 81, 3))])
def test_sizes_that_have_no_flow_are_refused(one, other):
    with pytest.raises(ValueError, match="optical flow needs two pictures of one size, at least 64 pixels"):
        optical_flow(torch.zeros(one), torch.zeros(other))


@pytest.mark.parametrize("flow", [(12, 15, 3), (12, 14, 2), (12, 15)])
def test_a_flow_of_another_size_is_refused(flow):
    with pytest.raises(ValueError, match=r"its flow \[H, W, 2\] are expected"):
        warp(torch.zeros(12, 15, 3), torch.zeros(flow))
