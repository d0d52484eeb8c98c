"""Mask by FastSAM through ultralytics' own code, on a network whose masks are known."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_api.latest import io
from fastsam_bench import DARK, HEIGHT, LEFT, PINK, RIGHT, SCENE, SKY, WIDTH, overlap, picture

pytest_plugins = ("fastsam_fixtures",)

REAL = [
    path
    for folder in (
        [] if "fastsam" not in folder_paths.folder_names_and_paths else folder_paths.get_folder_paths("fastsam")
    )
    + [os.path.join(folder_paths.models_dir, "fastsam")]
    for path in sorted(Path(folder).glob("FastSAM-*.pt"))
]
ON_LEFT, ON_RIGHT = "40, 56", "144, 70"
ALIKE = 0.98  # IoU with the rectangles: their corners are rounded by the masks' resolution


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (LEFT, RIGHT)),
        ({"best_n": 9}, (LEFT, RIGHT)),
        ({"mode": "points", "points": ON_LEFT}, (LEFT,)),
        ({"mode": "points", "points": ON_RIGHT}, (RIGHT,)),
        ({"mode": "points", "points": f"{ON_LEFT}; {ON_RIGHT}"}, (LEFT, RIGHT)),
        ({"mode": "points", "points": f"{ON_LEFT}, -"}, (RIGHT,)),
        ({"mode": "points", "points": f"{ON_RIGHT}; {ON_LEFT}, -"}, (RIGHT,)),
        ({"mode": "points", "point_input": (40, 56)}, (LEFT,)),
        ({"mode": "points", "points": ON_RIGHT, "point_input": [[40, 56]]}, (LEFT, RIGHT)),
        ({"mode": "boxes", "boxes": "20, 36, 60, 76"}, (LEFT,)),
        ({"mode": "boxes", "boxes": "20, 36, 60, 76; 100, 30, 192, 128"}, (LEFT, RIGHT)),
        ({"mode": "boxes", "box_input": {"x": 120, "y": 50, "width": 50, "height": 50}}, (RIGHT,)),
        ({"mode": "boxes", "box_input": [{"x": 20, "y": 36, "width": 40, "height": 40, "metadata": {}}]}, (LEFT,)),
        ({"mode": "boxes", "box_input": torch.tensor([[120, 50, 170, 100]])}, (RIGHT,)),
        ({"mode": "everything", "points": "not used", "boxes": "nor this"}, (LEFT, RIGHT)),
    ],
)
def test_prompts_choose_known_objects(fastsam, changes, expected):
    mask, masks, preview = fastsam.run(**changes)
    assert mask.shape == (1, HEIGHT, WIDTH)
    assert mask.dtype == torch.float32
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert overlap(mask, *expected) > ALIKE
    assert len(masks) == 1
    assert torch.equal(masks[0], mask)
    assert preview.shape == SCENE.shape
    assert f"{len(expected)} of 2 objects chosen" in fastsam.text


def test_separate_gives_each_object(fastsam):
    mask, masks, _ = fastsam.run(mode="points", points=f"{ON_RIGHT}; {ON_LEFT}", combine="separate")
    assert [overlap(each, box) > ALIKE for each, box in zip(masks, (RIGHT, LEFT), strict=True)] == [True, True]
    assert torch.equal(mask, torch.stack(masks).amax(0))


@pytest.mark.parametrize("size", [(96, 192), (200, 120), (333, 77), (64, 64), (500, 700)])
@pytest.mark.parametrize("image_size", [192, 256])
def test_masks_have_the_pictures_size(fastsam, size, image_size):
    """Whatever the letterbox adds around the picture is gone again."""
    image = torch.nn.functional.interpolate(SCENE.movedim(-1, 1), size, mode="area").movedim(1, -1)
    mask = fastsam.run(image, image_size=image_size)[0]
    assert mask.shape == (1, *size)


@pytest.mark.parametrize("scale", [2, 3])
def test_a_larger_picture_has_the_same_mask_enlarged(fastsam, scale):
    image = SCENE.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    mask = fastsam.run(image)[0]
    small = torch.nn.functional.avg_pool2d(mask, scale) > 0.5
    assert overlap(small, LEFT, RIGHT) > 0.95


def test_a_batch_is_masked_picture_by_picture(fastsam):
    batch = torch.cat([SCENE, picture((RIGHT, PINK)), DARK])
    mask, masks, preview = fastsam.run(batch, combine="separate")
    assert mask.shape == (3, HEIGHT, WIDTH)
    assert len(masks) == 3
    assert preview.shape == batch.shape
    assert overlap(mask[0], LEFT, RIGHT) > ALIKE
    assert overlap(mask[1], RIGHT) > ALIKE
    assert mask[2].sum() == 0
    assert "picture 2: 1 of 1" in fastsam.text
    assert "picture 3: 0 of 0" in fastsam.text


def test_boxes_of_each_picture(fastsam):
    boxes = [[{"x": 20, "y": 36, "width": 40, "height": 40}], [{"x": 120, "y": 50, "width": 50, "height": 50}]]
    mask = fastsam.run(torch.cat([SCENE, SCENE]), mode="boxes", box_input=boxes)[0]
    assert overlap(mask[0], LEFT) > ALIKE
    assert overlap(mask[1], RIGHT) > ALIKE


@pytest.mark.parametrize(
    "changes",
    [
        {"image": DARK},
        {"fastsam_name": "never.pt"},
        {"image": DARK, "mode": "points", "points": ON_LEFT},
        {"mode": "points", "points": "5, 5"},
        {"mode": "boxes", "boxes": "0, 0, 9, 9"},
    ],
)
def test_none_found(fastsam, changes):
    mask, masks, preview = fastsam.run(**changes)
    assert mask.shape == (1, HEIGHT, WIDTH)
    assert mask.sum() == 0
    assert [each.shape for each in masks] == [(1, HEIGHT, WIDTH)]
    assert torch.allclose(preview, changes.get("image", SCENE), atol=1 / 255)
    assert "no object found: the mask is empty" in fastsam.text
    with pytest.raises(ValueError, match=r"no object found \(0 of .*Lower confidence"):
        fastsam.run(**changes, when_none="error")


def test_prompts_that_meet_nothing_are_named(fastsam):
    mask = fastsam.run(mode="points", points=f"{ON_LEFT}; 5, 5")[0]
    assert overlap(mask, LEFT) > ALIKE
    assert "nothing for point (5, 5)" in fastsam.text


def test_hundreds_found(fastsam):
    mask, masks, _ = fastsam.run(
        torch.ones(1, 192, 192, 3), fastsam_name="always.pt", iou=1.0, combine="separate", mode="everything"
    )
    assert len(masks) == 300  # FastSAM's own limit
    assert mask.shape == (1, 192, 192)
    (chosen,) = fastsam.run(
        torch.ones(1, 192, 192, 3), fastsam_name="always.pt", iou=1.0, combine="separate", mode="points", points="96,96"
    )[1]
    assert chosen[0, 96, 96] == 1


def test_settings_reach_ultralytics(fastsam):
    assert "0 of 0" in (fastsam.run(confidence=1.0), fastsam.text)[1]
    fastsam.run(image=picture(((24, 40, 88, 72), SKY)), iou=0.1)
    few = int(fastsam.text.split()[2])
    fastsam.run(image=picture(((24, 40, 88, 72), SKY)), iou=0.95)
    assert int(fastsam.text.split()[2]) > few


@pytest.mark.parametrize("boxes", ["20,36,60,76", "100,30,192,128", "0,0,192,128"])
def test_boxes_agree_with_ultralytics_own_prompt(fastsam, pack, boxes):
    """The real FastSAM class, loading the file in its own way and choosing by its own rule."""
    mask = fastsam.run(mode="boxes", boxes=boxes)[0]
    registered = torch.serialization.get_safe_globals()
    with pack.host.segment.ultralytics_call.ultralytics_at_work() as ultralytics:
        own = ultralytics.FastSAM(str(fastsam.folder / "bright.pt"))
        source = pack.host.segment.fastsam.as_bgr(SCENE[0])
        box = [int(number) for number in boxes.split(",")]
        options = {"device": "cpu", "conf": 0.4, "iou": 0.1, "imgsz": WIDTH, "retina_masks": True, "verbose": False}
        (result,) = own.predict([source], bboxes=box, **options)
    torch.serialization.clear_safe_globals()  # its own loading leaves its classes there for good; ours does not
    torch.serialization.add_safe_globals(registered)
    assert torch.equal(result.masks.data.float().cpu(), mask)


def test_the_preview_shows_outlines_and_numbers(fastsam):
    preview = fastsam.run(combine="separate")[2]
    changed = (preview - SCENE).abs().amax(-1)[0] > 0.05
    for x1, y1, x2, y2 in (LEFT, RIGHT):
        assert changed[y1 : y2 + 1, x1 : x2 + 1].float().mean() > 0.1
        assert changed[(y1 + y2) // 2 - 8 : (y1 + y2) // 2 + 8, (x1 + x2) // 2 - 8 : (x1 + x2) // 2 + 8].any()
    assert not changed[:, 70:110].any()


def test_same_again(fastsam):
    first, second = fastsam.run(), fastsam.run()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[2], second[2])


def test_a_changed_file_is_another_input(fastsam):
    first = fastsam.node.fingerprint_inputs(fastsam_name="bright.pt", clip_folder="none", image=None)
    assert first == fastsam.node.fingerprint_inputs(fastsam_name="bright.pt")
    os.utime(fastsam.folder / "bright.pt", ns=(1, 1))
    assert first != fastsam.node.fingerprint_inputs(fastsam_name="bright.pt")
    assert fastsam.node.fingerprint_inputs(fastsam_name="missing.pt") == ""
    assert fastsam.node.fingerprint_inputs(fastsam_name=None, clip_folder=None) == ""  # both over wires


def test_received_pictures_are_not_changed(fastsam):
    before = SCENE.clone()
    fastsam.run()
    assert torch.equal(before, SCENE)


def test_an_interrupt_between_pictures_leaves_nothing_behind(fastsam):
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        fastsam.run(torch.cat([SCENE, SCENE]))
    assert overlap(fastsam.run()[0], LEFT, RIGHT) > ALIKE


def test_the_schema_offers_what_the_page_promises(fastsam):
    schema = fastsam.node.define_schema()
    inputs = {entry.id: entry for entry in schema.inputs}
    assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs])
    assert inputs["fastsam_name"].options == [
        "FastSAM-s.pt (not installed)",
        "FastSAM-x.pt (not installed)",
        "always.pt",
        "bright.pt",
        "never.pt",
    ]
    several = ["BOUNDING_BOXES"] if hasattr(io, "BoundingBoxes") else []  # not in every host that the pack runs on
    assert inputs["box_input"].get_io_type().split(",") == ["BOUNDING_BOX", *several, "BBOX"]
    assert inputs["point_input"].get_io_type() == "POINT"


@pytest.mark.skipif(not REAL, reason="no FastSAM-*.pt in models/fastsam: put one there to test the real weights")
@pytest.mark.parametrize("path", REAL or [Path("none")], ids=lambda path: path.name)
def test_real_weights(fastsam, path):
    """The file of ultralytics' release loads safely and finds a plain object."""
    (fastsam.folder / "real.pt").write_bytes(path.read_bytes())
    image = torch.rand(1, 480, 640, 3) * 0.1
    image[0, 100:300, 100:300] = torch.tensor(PINK)
    mask, _, _ = fastsam.run(image, fastsam_name="real.pt", mode="points", points="200, 200", image_size=640, iou=0.9)
    assert mask[0, 100:300, 100:300].mean() > 0.9
    assert mask[0].sum() < 1.5 * 200 * 200
