"""Objects chosen by words: the ranking, and the CLIPs that make it."""

from __future__ import annotations

import folder_paths
import pytest
import tiny_clip
import torch
from fastsam_bench import LEFT, PINK, RIGHT, SKY, overlap, picture

pytest_plugins = ("fastsam_fixtures",)


@pytest.fixture
def colours(pack, monkeypatch):
    """A CLIP that knows two words: how a picture's mean colour differs from grey."""

    def centred(colour):
        return colour - colour.mean(-1, keepdim=True)

    def make(text, *_):
        wanted = {"pink": PINK, "sky": SKY}[text]
        return pack.host.networks.clip.TextRanker(
            centred(torch.tensor(wanted)), lambda crops: centred(crops.mean((1, 2))), 32
        )

    monkeypatch.setattr(pack.host.segment.choosers, "make_ranker", make)


@pytest.mark.parametrize(("text", "expected"), [("pink", LEFT), (" sky\n", RIGHT)])
def test_the_best_ranked_object_is_chosen(fastsam, colours, text, expected):
    assert overlap(fastsam.run(mode="text", text=text)[0], expected) > 0.98


def test_best_n_takes_them_in_order(fastsam, colours):
    masks = fastsam.run(mode="text", text="sky", best_n=2, combine="separate")[1]
    assert [overlap(mask, box) > 0.98 for mask, box in zip(masks, (RIGHT, LEFT), strict=True)] == [True, True]


def test_the_text_finds_nothing_in_a_dark_picture(fastsam, colours):
    assert fastsam.run(picture(), mode="text", text="sky")[0].sum() == 0


def test_hundreds_are_ranked(fastsam, colours):
    image = torch.ones(1, 192, 192, 3)
    masks = fastsam.run(image, mode="text", text="sky", fastsam_name="always.pt", iou=1.0, combine="separate")[1]
    assert len(masks) == 1


@pytest.fixture(scope="module")
def clip_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("clips")
    with torch.inference_mode():
        return home, tiny_clip.make_folder(home / "tiny-clip")


@pytest.fixture
def clips(clip_home, monkeypatch):
    """models/clip with one folder, tiny-clip; the model in it."""
    home, model = clip_home
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "text_encoders", ([str(home)], set()))
    return model


CROPS = torch.rand(5, 32, 32, 3, generator=torch.Generator().manual_seed(6))


def test_the_hosts_clip_and_transformers_agree(pack, clips, measured):
    """The same weights in both, so the same words rank the same pictures alike."""
    text = "a photo of the face"
    ours = pack.host.networks.clip.make_ranker(text, tiny_clip.host_text(clips), tiny_clip.host_vision(clips), "none")
    theirs = pack.host.networks.clip.make_ranker(text, None, None, "tiny-clip")
    assert (ours.size, theirs.size) == (32, 32)
    ranks = ours.rank(CROPS), theirs.rank(CROPS)
    assert ranks[0].std() > 1e-3
    measured(
        "similarity, host CLIP against transformers, max. difference", (ranks[0] - ranks[1]).abs().max().item(), 1e-3
    )


def test_clip_folders_are_listed(pack, clips, clip_home, tmp_path):
    home, _ = clip_home
    (home / "t5").mkdir(exist_ok=True)
    (home / "t5" / "config.json").write_text('{"model_type": "t5"}')
    (home / "broken").mkdir(exist_ok=True)
    (home / "broken" / "config.json").write_text("{")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text('{"model_type": "clip"}')
    if not (home / "link").exists():
        (home / "link").symlink_to(outside)
    assert list(pack.host.networks.clip.clip_folders()) == ["tiny-clip"]


def test_a_real_clip_through_the_node(fastsam, clips):
    """Random weights choose anything, but the same thing each time, from a folder and over wires."""
    first = fastsam.run(mode="text", text="the face", clip_folder="tiny-clip")[0]
    wired = {"clip": tiny_clip.host_text(clips), "clip_vision": tiny_clip.host_vision(clips)}
    assert first.sum() > 0
    assert torch.equal(first, fastsam.run(mode="text", text="the face", **wired)[0])


def test_a_changed_clip_is_another_input(fastsam, clips, clip_home):
    first = fastsam.node.fingerprint_inputs(fastsam_name="bright.pt", clip_folder="tiny-clip")
    config = clip_home[0] / "tiny-clip" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert first != fastsam.node.fingerprint_inputs(fastsam_name="bright.pt", clip_folder="tiny-clip")


def refusals(model):
    text, vision = tiny_clip.host_text(model), tiny_clip.host_vision(model)
    untrained = tiny_clip.host_text(model)
    untrained.cond_stage_model.clip_l.transformer.text_projection.weight.data = torch.eye(32)
    return [
        ({"clip": text}, "clip_vision is not wired", "Wire both"),
        ({"clip_vision": vision}, "clip is not wired", "Wire both"),
        ({"clip": text, "clip_vision": vision, "clip_folder": "tiny-clip"}, "both a wired CLIP", "'tiny-clip'"),
        ({"clip_folder": "../tiny-clip"}, "clip_folder", "'../tiny-clip'", "tiny-clip"),
        ({"clip_folder": "missing"}, "clip_folder", "'missing'"),
        ({"clip": text, "clip_vision": tiny_clip.host_vision(None, projection_dim=24)}, "24 numbers", "[32, 32]"),
        (
            {"clip": tiny_clip.host_text(model, projected=False), "clip_vision": vision},
            "no projection at all",
            "clip_l",
        ),
        ({"clip": untrained, "clip_vision": vision}, "no trained text projection", "Load CLIP"),
        ({"clip": text, "clip_vision": tiny_clip.host_vision(None, model_type="siglip_vision_model")}, "siglip"),
    ]


@pytest.mark.parametrize("row", range(9))
def test_other_clips_are_refused(fastsam, clips, row):
    changes, *words = refusals(clips)[row]
    with pytest.raises(ValueError, match=r"clip") as caught:
        fastsam.run(mode="text", text="the face", **changes)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_folder_without_its_files_is_refused(fastsam, clips, clip_home):
    folder = clip_home[0] / "empty-clip"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text((clip_home[0] / "tiny-clip" / "config.json").read_text())
    try:
        with pytest.raises(ValueError, match=r"'empty-clip' cannot be loaded as a CLIP.*model\.safetensors"):
            fastsam.run(mode="text", text="the face", clip_folder="empty-clip")
    finally:
        (folder / "config.json").unlink()
