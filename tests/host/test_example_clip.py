"""Example Clip: a window that moves by whole pixels, as a video of the host's."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from comfy_extras.nodes_video import GetVideoComponents


def parts_of(pack, picture="content_bay.jpg", frames=8, fps=8.0):
    """(frames, audio, fps) as the host's own node takes them out."""
    (video,) = pack.examples.clip.ExampleClip.execute(picture=picture, frames=frames, fps=fps).args
    return video, GetVideoComponents.execute(video).args[:3]


@pytest.mark.parametrize(("picture", "side"), [("content_bay.jpg", 448), ("content_chelsea.jpg", 262)])
@pytest.mark.parametrize("frames", [2, 8])
def test_every_frame_is_a_part_of_the_picture_and_the_last_is_at_the_corner(pack, picture, side, frames):
    _, (images, audio, fps) = parts_of(pack, picture, frames, 12.5)
    whole = pack.examples.example.ExamplePicture.execute(picture).args[0][0]
    assert images.shape == (frames, side, side, 3)
    for i, frame in enumerate(images):
        at = round(i / (frames - 1) * (len(whole) - side))
        assert torch.equal(frame, whole[at : at + side, at : at + side])
    assert torch.equal(images[-1], whole[-side:, -side:])
    assert audio is None
    assert fps == 12.5


def test_it_is_a_file_as_any_video_is(pack, tmp_path):
    video, (images, _, _) = parts_of(pack, frames=6)
    video.save_to(str(tmp_path / "clip.mp4"))
    host = pack.examples.clip.InputImpl.VideoFromFile(str(tmp_path / "clip.mp4"))
    back = host.get_components()
    assert back.images.shape == images.shape
    assert back.frame_rate == Fraction(8)
    assert (back.images - images).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": 1}, r"frames must lie in 2\.\.64, got 1"),
        ({"frames": 65}, r"frames must lie in 2\.\.64, got 65"),
        ({"fps": 0.0}, r"fps must lie in 1\.\.120, got 0"),
        ({"picture": "../x.jpg"}, "picture: there is no example"),
    ],
)
def test_refusals(pack, changes, words):
    with pytest.raises(ValueError, match=words):
        parts_of(pack, **changes)
