"""Spatial ramps against their closed forms."""

from __future__ import annotations

import math
import random

import pytest
import torch

from diffstyler_core.masks.mask import PROFILES, ramp

CENTRE = (0.5, 0.5)


def closed_form(profile, along, sharpness):
    """The profiles at a signed distance from the centre, in parts of the picture's extent."""
    if profile == "step":
        return 1.0 if along >= 0 else 0.0
    if profile == "logistic":
        return 1.0 / (1.0 + math.exp(-4.0 * sharpness * along))
    return min(1.0, max(0.0, 0.5 + sharpness * along))


@pytest.mark.parametrize(
    ("profile", "sharpness", "expected"),
    [
        ("linear", 1.0, [0.125, 0.375, 0.625, 0.875]),
        ("linear", 2.0, [0.0, 0.25, 0.75, 1.0]),
        ("linear", 0.5, [0.3125, 0.4375, 0.5625, 0.6875]),
        ("step", 1.0, [0.0, 0.0, 1.0, 1.0]),
        ("step", 9.0, [0.0, 0.0, 1.0, 1.0]),
        ("logistic", 1.0, [1 / (1 + math.exp(t)) for t in (1.5, 0.5, -0.5, -1.5)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("angle", "turn"), [(0, lambda m: m), (90, lambda m: m.T), (180, lambda m: m.flip(1)),
                                             (270, lambda m: m.flip(0).T), (-90, lambda m: m.flip(0).T)])  # fmt: skip
def test_four_pixels_in_each_direction(profile, sharpness, expected, angle, turn):
    """The mask, turned so that it rises to the right."""
    upright = turn(ramp(4, 4, profile, angle, CENTRE, sharpness))
    assert torch.allclose(upright, torch.tensor(expected).expand(4, 4), atol=1e-6)


def test_any_ramp_is_its_closed_form(seed):
    draw = random.Random(seed)
    for _ in range(30):
        height, width = draw.randint(1, 40), draw.randint(1, 40)
        angle, sharpness = draw.uniform(-360, 360), draw.uniform(0.1, 8)
        centre = (draw.uniform(-0.5, 1.5), draw.uniform(-0.5, 1.5))
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        extent = abs(dx) * width + abs(dy) * height
        for profile in PROFILES:
            mask = ramp(height, width, profile, angle, centre, sharpness)
            assert (mask.shape, mask.dtype) == ((height, width), torch.float32)
            y, x = draw.randrange(height), draw.randrange(width)
            along = ((x + 0.5 - centre[0] * width) * dx + (y + 0.5 - centre[1] * height) * dy) / extent
            assert mask[y, x].item() == pytest.approx(closed_form(profile, along, sharpness), abs=1e-6)


def test_a_linear_ramp_of_sharpness_one_goes_from_corner_to_corner():
    mask = ramp(300, 400, "linear", math.degrees(math.atan2(300, 400)), CENTRE, 1.0)
    assert 0 < mask[0, 0] < 0.004
    assert 0.996 < mask[-1, -1] < 1
    assert mask.double().mean().item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("profile", ["linear", "logistic"])
def test_sharpness_is_the_slope_at_the_centre_and_the_centre_is_a_half(profile):
    mask = ramp(1, 1001, profile, 0, (500.5 / 1001, 0.5), 3.0)[0].double()
    assert mask[500].item() == pytest.approx(0.5, abs=1e-6)
    assert (mask[501] - mask[499]).item() / 2 * 1001 == pytest.approx(3.0, rel=1e-3)


def test_a_step_is_one_from_the_line_on():
    assert ramp(1, 5, "step", 0, CENTRE, 1.0).tolist() == [[0, 0, 1, 1, 1]]
    assert ramp(1, 5, "step", 180, CENTRE, 1.0).tolist() == [[1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": "cubic"}, ("profile", "'cubic'", "logistic")),
        ({"sharpness": 0.0}, ("sharpness must be above 0", "got 0.0")),
        ({"sharpness": -1.0}, ("sharpness must be above 0", "got -1.0")),
        ({"sharpness": math.nan}, ("must be numbers", "nan")),
        ({"angle": math.inf}, ("must be numbers", "inf")),
        ({"centre": (0.5, math.nan)}, ("must be numbers", "(0.5, nan)")),
        ({"width": 0}, ("at least one pixel", "0 x 4")),
        ({"height": -1}, ("at least one pixel", "4 x -1")),
    ],
)
def test_ramps_that_cannot_be(changes, words):
    settings = {"height": 4, "width": 4, "profile": "linear", "angle": 0.0, "centre": CENTRE, "sharpness": 1.0}
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the words are checked below
        ramp(**{**settings, **changes})
    assert [word for word in words if word not in str(error.value)] == []
