"""What is left to the model: layers by the grid that they see, picture size, learning rate; and said on the node."""

from __future__ import annotations

import pytest
import steps
import tiny
import torch
from comfy.supported_models import SD15

CAPTURE = {
    "feature_end_percent": 1.0, "attention_end_percent": 1.0, "storage": "recompute", "precision": "fp16",
}  # fmt: skip


def captured(pack, kind, height, width, **layers):
    """(the request, the words) of Capture with layers auto, of a latent of this size."""
    model, source = tiny.make_model(kind), tiny.make_prompt(0, sdxl=kind == "sdxl")
    trajectory = pack.core.diffusion.trajectory.Trajectory(
        (torch.zeros(1, 4, height, width),) * 5, pack.host.model.schedule_of(model, 4), pack.host.model.family_of(model)
    )
    given = {"feature_layers": "auto", "self_attention_layers": "auto", "cross_attention_layers": "", **layers}
    node = pack.pipeline.capture.CaptureFeatures
    out = node.execute(model=model, trajectory=trajectory, source=source, **CAPTURE, **given)
    return out.args[0].request, out.ui["text"][0]


@pytest.mark.parametrize(
    ("kind", "cells", "feature", "attention"),
    [
        ("sd15", 64, 4, range(4, 12)),
        ("sd21", 96, 4, range(4, 12)),
        ("sd21", 32, 7, range(7, 12)),
        ("sdxl", 128, 1, range(1, 6)),
        ("small", 16, 3, range(3, 4)),
    ],
)
def test_capture_takes_the_papers_layers_by_grid(pack, kind, cells, feature, attention):
    request, words = captured(pack, kind, cells, cells)
    assert {site.layer for site in request.feature_sites} == {feature}
    assert {site.layer for site in request.attention_sites} == set(attention)
    assert f"layers auto: feature {feature}, self-attention " in words


def test_the_grid_that_is_said_is_the_one_that_the_layer_sees(pack, seed):
    """An odd picture: 11 x 9 cells, which the host's convolutions halve to 6 x 5."""
    model, source = tiny.make_model("small", seed=seed), tiny.make_prompt(0)
    latent = {"samples": torch.randn(1, 4, 11, 9)}
    trajectory, *_ = steps.invert(pack, model, latent, source)
    features = steps.capture(pack, model, trajectory, source, feature_layers="1", self_attention_layers="")
    layout = pack.host.model.layout_of(model)
    for site, (hidden,) in features.at(0).items():
        stride = layout.strides[site.layer]
        assert tuple(hidden.shape[-2:]) == (-(-11 // stride), -(-9 // stride))


def test_of_a_styles_picture_the_finer_attention_is_taken(pack):
    request, _ = captured(pack, "sd15", 64, 64, feature_layers="", values=True)
    assert {site.layer for site in request.attention_sites} == set(range(6, 12))
    assert request.feature_sites == ()


def test_all_is_every_layer_that_there_is(pack):
    request, words = captured(
        pack, "sdxl", 64, 64, feature_layers="all", self_attention_layers="all", cross_attention_layers="auto"
    )
    assert {site.layer for site in request.feature_sites} == set(range(9))
    assert {s.layer for s in request.attention_sites if s.kind == "self-attention"} == set(range(6))
    assert {s.layer for s in request.attention_sites if s.kind == "cross-attention"} == set(range(1, 6))
    assert "cross-attention of layers 1-5" in words


@pytest.mark.parametrize(
    ("kind", "velocity", "side"),
    [("sd15", False, 512), ("sd21", False, 512), ("sd21", True, 768), ("sdxl", True, 1024)],
)
@pytest.mark.parametrize(
    ("shape", "picture", "wanted"),
    [
        ("square", (300, 500), (1.0, 1.0)),
        ("keep aspect", (300, 300), (1.0, 1.0)),
        ("keep aspect", (400, 100), (0.5, 2.0)),
    ],
)
def test_a_picture_at_the_models_size(pack, kind, velocity, side, shape, picture, wanted):
    """wanted: width and height over the model's side."""
    node = pack.pipeline.scale_picture.ScalePicture
    model = tiny.make_model(kind, velocity=velocity)
    image, width, height = node.execute(model, torch.rand(2, *picture, 3), shape, 0).args
    assert (width, height) == tuple(round(side * w / 64) * 64 for w in wanted)
    assert tuple(image.shape) == (2, height, width, 3)


def test_nothing_is_squeezed(pack):
    """A circle stays one: the middle is cropped to the new shape."""
    rows, columns = torch.meshgrid(torch.arange(200.0), torch.arange(320.0), indexing="ij")
    circle = (((rows - 100) ** 2 + (columns - 160) ** 2) < 60**2).float()
    picture = circle[None, ..., None].expand(1, -1, -1, 3)
    image = pack.pipeline.scale_picture.ScalePicture.execute(tiny.make_model("sd15"), picture, "keep aspect", 256).args[
        0
    ]
    found = image[0, ..., 0] > 0.5
    height, width = found.any(1).sum(), found.any(0).sum()
    assert abs(int(height) - int(width)) <= 1


@pytest.mark.parametrize(
    ("shape", "size", "image", "words"),
    [
        ("round", 0, torch.rand(1, 8, 8, 3), "shape must be one of square, keep aspect, got 'round'"),
        ("square", -64, torch.rand(1, 8, 8, 3), "size must be 0 .* or lie in 64..8192, got -64"),
        ("square", 32, torch.rand(1, 8, 8, 3), "size must be 0"),
        ("keep aspect", 0, torch.rand(1, 90, 10, 3), "10 x 90 is more than 8 times longer"),
        ("square", 0, torch.full((1, 8, 8, 3), float("nan")), "image .*NaN"),
        ("square", 0, torch.rand(1, 8, 8, 4), "image: RGB pictures"),
    ],
)
def test_scaling_refuses(pack, shape, size, image, words):
    with pytest.raises(ValueError, match=words):
        pack.pipeline.scale_picture.ScalePicture.execute(tiny.make_model("sd15"), image, shape, size)


def test_the_demo_checkpoint_has_settings_of_its_own(pack):
    auto = pack.host.training.auto
    model = tiny.make_model("sd21")
    assert auto.suited(model, 0, 0.0, auto.LORA) == (512, 2e-4, "auto: resolution 512, learning rate 0.0002")
    assert auto.suited(model, 64, 0.1, auto.LORA) == (64, 0.1, "")
    model.model.model_config = type("Demo", (SD15,), {"required_keys": {pack.host.demo_model.MARKER: None}})({})
    assert auto.suited(model, 0, 0.0, auto.EMBEDDING) == (256, 2e-2, "auto: resolution 256, learning rate 0.02")


def test_training_says_what_it_chose_and_finds_its_file_by_it(pack, seed):
    model, vae, prompt = tiny.make_model("small", seed=seed), tiny.make_vae(), tiny.make_prompt(seed)
    settings = {"rank": 2, "alpha": 2.0, "steps": 2, "weight_decay": 0.01, "seed": 0, "targets": "q, k, v",
                "batch_size": 1, "gradient_checkpointing": False, "precision": "fp32", "preview_every": 0, "save": True,
                "filename_prefix": "DiffStyler/test"}  # fmt: skip
    node, picture = pack.pipeline.train.TrainStyleLoRA, torch.rand(1, 64, 64, 3)
    wires = {"model": model, "vae": vae, "style_image": picture, "prompt": prompt, **settings}
    said = [node.execute(resolution=64, learning_rate=rate, **wires).ui["text"][0] for rate in (0.0, 0.0, 2e-4)]
    assert "auto: learning rate 0.0002" in said[0]
    assert "trained 2 steps" in said[0]
    assert "loaded" in said[1]
    assert "auto: learning rate 0.0002" in said[1]
    assert "loaded" in said[2], "the same settings by name are the same request"
    assert "auto" not in said[2]
