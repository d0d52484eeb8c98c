"""The generators behind the demo checkpoint's training set. No host, no downloads."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from tools.demo_training import artworks, demo_pictures, photographs, pictures, scenes

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
