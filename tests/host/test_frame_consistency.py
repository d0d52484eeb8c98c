"""Frame Consistency: a clip that moves with its content is as steady as it, one that flickers is not; refusals."""

from __future__ import annotations

import csv
import io
import math

import comfy.model_management
import pytest
import regions_bench as rb
import torch

COUNT, SIDE = 4, 96


def clip_of(picture, count=COUNT, side=SIDE):
    """[count, side, side, 3]: a window that moves by (3, 2) pixels a frame."""
    return torch.stack([picture[40 + 2 * i : 40 + 2 * i + side, 60 + 3 * i : 60 + 3 * i + side] for i in range(count)])


@pytest.fixture(scope="module")
def pictures(pack):
    names = ("content_houses.jpg", "style_mosaic.jpg")
    return [pack.examples.example.ExamplePicture.execute(name).args[0][0] for name in names]


def measured_of(pack, frames, content):
    (plot, text, table, *values), words, picture = rb.run(
        pack.evaluate.frame_consistency.FrameConsistency, frames=frames, content=content
    )
    assert text == words
    assert picture.shape == plot.shape[1:]
    return values, text, list(csv.DictReader(io.StringIO(table)))


def test_a_clip_against_itself_has_the_contents_figure(pack, pictures):
    clip = clip_of(pictures[0])
    (ours, own), text, rows = measured_of(pack, clip, clip)
    assert ours == own
    assert own < 0.02
    assert [(row["frame"], row["next_frame"]) for row in rows] == [("1", "2"), ("2", "3"), ("3", "4")]
    assert sum(float(row["difference"]) for row in rows) / 3 == pytest.approx(ours, rel=1e-6)
    assert text.startswith(f"4 frames: warped-frame difference {ours:.4f}, the content's own {own:.4f}\n")


def test_what_moves_along_is_steady_and_what_stands_still_is_not(pack, pictures, measured):
    """The same texture: once painted on the scene, once on the lens; and alternating brightness in closed form."""
    content = clip_of(pictures[0])
    moving, standing = clip_of(pictures[1]), clip_of(pictures[1])[:1].expand(COUNT, -1, -1, -1)
    steady, _, _ = measured_of(pack, moving, content)
    still, _, _ = measured_of(pack, standing, content)
    measured("moving texture over standing texture", steady[0] / still[0], at_most=0.5)
    turns = content * 0.5 + torch.tensor([0.0, 0.2, 0.0, 0.2])[:, None, None, None]
    flickering, _, rows = measured_of(pack, turns, content)
    measured("alternating brightness against 0.2", abs(flickering[0] - 0.2), at_most=0.02)
    assert flickering[1] == steady[1] == still[1]
    assert all(float(row["warping_error"]) == pytest.approx(0.04, abs=0.01) for row in rows)


def test_what_is_wired_in_stays_and_comes_out_the_same_again(pack, pictures):
    frames, content = clip_of(pictures[1]), clip_of(pictures[0])
    before = frames.clone(), content.clone()
    once, again = (measured_of(pack, frames, content) for _ in range(2))
    assert once == again
    assert torch.equal(frames, before[0])
    assert torch.equal(content, before[1])


def test_a_content_that_vae_encode_crops_is_cropped_alike(pack, pictures):
    content = clip_of(pictures[0], side=101)
    frames = content[:, 2:98, 2:98]
    (ours, own), _, _ = measured_of(pack, frames, content)
    assert ours == own


@pytest.mark.parametrize(
    ("frames", "content", "words"),
    [
        ((1, 96, 96), (1, 96, 96), ("frames and content", "at least two", "got 1 and 1")),
        ((3, 96, 96), (4, 96, 96), ("frames and content", "got 3 and 4", "Image From Batch")),
        ((2, 96, 96), (2, 96, 160), ("frames is 96 x 96", "content 160 x 96")),
        ((2, 56, 96), (2, 56, 96), ("frames: motion", "64 pixels", "got 96 x 56")),
    ],
)
def test_clips_that_do_not_fit_are_refused(pack, seed, frames, content, words):
    ours, theirs = (rb.pictures(seed, *size[1:], count=size[0]) for size in (frames, content))
    with rb.refuses(*words):
        measured_of(pack, ours, theirs)


@pytest.mark.parametrize("which", ["frames", "content"])
def test_values_that_are_not_finite_are_refused(pack, seed, which):
    wired = {"frames": rb.pictures(seed, 96, 96, 2), "content": rb.pictures(seed, 96, 96, 2)}
    wired[which][1, 3, 3, 0] = math.nan
    with rb.refuses(which, "NaN"):
        pack.evaluate.frame_consistency.FrameConsistency.execute(**wired)


def test_cancel_stops_it(pack, pictures):
    clip = clip_of(pictures[0])
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        measured_of(pack, clip, clip)
