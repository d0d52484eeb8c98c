"""The generators behind the demo checkpoint's training set. No host, no downloads."""

import csv

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")

from tools.demo_training import artworks, curves, demo_pictures, photographs, pictures, scenes, widen

SIZE = 48


@pytest.mark.parametrize("subject", list(scenes.SUBJECTS))
def test_a_scene_is_a_picture_and_depends_on_the_seed_alone(subject):
    first, again, other = (scenes.scene(subject, SIZE, seed) for seed in (3, 3, 4))
    assert first.shape == (SIZE, SIZE, 3)
    assert np.isfinite(first).all()
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.std() > 0.01
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("technique", list(artworks.TECHNIQUES))
def test_an_artwork_is_a_picture_that_is_changed_and_repeatable(technique):
    content = scenes.scene("houses", SIZE, 1)
    kept = content.copy()
    first, again, other = (artworks.artwork(content, technique, seed) for seed in (5, 5, 6))
    assert first.shape == content.shape
    assert np.isfinite(first).all()
    assert first.min() >= 0
    assert first.max() <= 1
    assert abs(first - content).mean() > 0.01
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(content, kept)


def test_training_pictures_have_captions_and_repeat():
    made = [pictures.picture(index, photos=[]) for index in (0, 1, 2)]
    for image, caption in made:
        assert image.shape == (pictures.SIZE, pictures.SIZE, 3)
        assert image.dtype == np.uint8
        assert any(caption.endswith(subject) for subject in scenes.SUBJECTS)
    image, caption = pictures.picture(1, photos=[])
    np.testing.assert_array_equal(image, made[1][0])
    assert caption == made[1][1]


def test_captions_name_kind_and_subject_and_sometimes_the_style_token():
    rng = np.random.default_rng(0)
    assert pictures.caption(None, "mountains", rng) == "photo of mountains"
    drawn = {pictures.caption("oil", "mountains", rng) for _ in range(50)}
    assert drawn == {"painting of <sss>, mountains", "painting of mountains", "oil painting of mountains"}


def test_held_out_photographs_are_never_trained_on():
    trained = {p.member for p in photographs.TRAINING}
    assert not trained & {p.member for p in photographs.HELD_OUT}
    assert {p.member.split("/")[-1] for p in photographs.HELD_OUT} == {"astronaut.png", "chelsea.png", "coffee.png"}


def test_jitter_and_crops_keep_shape_and_type():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3)).astype(np.uint8)
    small = photographs.crop(image, 32, rng)
    assert small.shape == (32, 32, 3)
    changed = photographs.jitter(small, rng)
    assert changed.shape == (32, 32, 3)
    assert changed.dtype == np.uint8
    assert photographs.centre(image, 32).shape == (32, 32, 3)


def test_demo_styles_are_the_same_every_time():
    first, again = demo_pictures.ink_drawing(), demo_pictures.ink_drawing()
    assert first.shape == (demo_pictures.SIDE, demo_pictures.SIDE, 3)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: scenes.scene("a dragon", SIZE, 0), "a dragon"),
        (lambda: artworks.artwork(np.zeros((8, 8, 3)), "fresco", 0), "fresco"),
        (lambda: photographs.load(photographs.HELD_OUT[0], pictures.Path("nowhere")), "data"),
    ],
)
def test_refusals_name_what_was_given(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_curves_are_read_from_what_the_stages_say(tmp_path):
    lines = [
        "10:20:20 pair 480  20%  psnr 20.56  held out 21.20 24.93 22.63",
        "10:20:55 pair 520  22%  psnr 20.80  ",
        "03:58:04 something else 10: 0.570",
        "07:56:50 unet 3000  7650 s  99%  loss 0.1013",
        "07:57:36 held out: 0.0947",
        "07:57:41 unet done: held out 0.0946",
    ]
    (tmp_path / "wide.log").write_text("\n".join(lines))
    curves.write(tmp_path, [tmp_path / "wide.log"])
    with (tmp_path / "training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["part"], row["step"]) for row in rows] == [
        ("wide", "pair", "480"),
        ("wide", "pair", "520"),
        *[("wide", "unet", "3000")] * 3,
    ]
    assert [row["training"] for row in rows] == ["20.56", "20.8", "0.1013", "", ""]
    assert float(rows[0]["held_out"]) == pytest.approx((21.20 + 24.93 + 22.63) / 3)
    assert [row["held_out"] for row in rows[1:]] == ["", "", "0.0947", "0.0946"]
    assert (tmp_path / "training.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no training figures"):
        curves.write(tmp_path, [])


def test_a_wider_tensor_keeps_the_narrow_one_and_is_zero_elsewhere():
    before = torch.randn(3, 2, 3, 3)
    after = widen.grown(before, torch.Size((4, 5, 3, 3)))
    assert torch.equal(after[:3, :2], before)
    after[:3, :2] = 0
    assert not after.any()
    assert torch.equal(widen.grown(before, before.shape), before)
    with pytest.raises(ValueError, match="fewer channels"):
        widen.grown(before, torch.Size((3, 1, 3, 3)))
