"""What Train Style LoRA refuses, what it accepts, and how a run that breaks off ends."""

from __future__ import annotations

import math

import comfy.conds
import comfy.controlnet
import comfy.hooks
import comfy.sd
import folder_paths
import pytest
import tiny
import torch
from node_bench import EMPTY, PICTURE, STYLE, files_below, refused, table

import nodes as host_nodes

pytest_plugins = ("guards",)


def picture(height=96, width=80, channels=3, value=None):
    """A style IMAGE, with one bad value on request."""
    image = torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(4))
    if value is not None:
        image[0, 0, 0, 0] = value
    return image


def prompt(value=None, width=32, **options):
    """A prompt of that width, with one bad value and options on request."""
    embedding = tiny.make_prompt(1)[0][0].repeat(1, 1, width // 32)
    if value is not None:
        embedding[0, 3, 5] = value
    return [[embedding, options]]


def controlled():
    """The prompt with a ControlNet, as the host's node wires it."""
    net = comfy.controlnet.ControlNet(torch.nn.Linear(1, 1), load_device=torch.device("cpu"))
    return host_nodes.ControlNetApplyAdvanced().apply_controlnet(prompt(), EMPTY, net, picture(), 0.8, 0.0, 1.0)[0]


def hooked():
    """The prompt with a hook of its own, as the host's nodes set it."""
    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.WeightHook())
    return comfy.hooks.set_hooks_for_conditioning(prompt(), group)


POOLED = torch.zeros(1, 32)
REFUSED = [
    ({"style_image": picture()[:0]}, "style_image: ", "[0, 96, 80, 3]", "Wire a picture"),
    ({"style_image": torch.rand(1, 1, 1, 3)}, "style_image: ", "got 1 x 1"),
    ({"style_image": torch.rand(1, 64, 0, 3)}, "style_image: ", "[1, 64, 0, 3]"),
    ({"style_image": picture(value=-math.inf)}, "style_image ", "infinity"),
    ({"prompt": []}, "prompt: ", "got 0"),
    ({"prompt": prompt(math.nan)}, "prompt ", "NaN"),
    ({"prompt": prompt(math.inf)}, "prompt ", "infinity"),
    ({"prompt": prompt(pooled_output=POOLED * math.nan)}, "prompt, pooled_output ", "NaN"),
    ({"prompt": prompt(width=64)}, "prompt: ", "width 32, got 64", "own CLIP"),
    ({"prompt": prompt(mask=torch.ones(1, 8, 8))}, "prompt: ", "mask"),
    ({"prompt": prompt(start_percent=0.5)}, "prompt: ", "50 %"),
    ({"prompt": controlled()}, "prompt: ", "got one with a ControlNet", "Text Encode straight", "sampler's prompts"),
    ({"prompt": hooked()}, "prompt: ", "got one with hooks"),
    ({"prompt": prompt(gligen=("position", None, [(POOLED, 8, 8, 0, 0)]))}, "prompt: ", "with GLIGEN boxes"),
    ({"prompt": prompt(additional_models=[object()])}, "prompt: ", "models of its own"),
    ({"prompt": prompt(model_conds={"c_other": comfy.conds.CONDConstant(1)})}, "model: ", "also takes ['c_other']"),
    ({"rank": math.nan}, "rank", "got nan", "1..1024"),
    ({"steps": math.nan}, "steps", "got nan", "1..100000"),
    ({"learning_rate": math.nan}, "learning_rate", "got nan"),
    ({"weight_decay": math.nan}, "weight_decay", "got nan", "0..1"),
    ({"seed": math.nan}, "seed", "got nan"),
    ({"resolution": math.nan}, "resolution", "got nan"),
    ({"batch_size": math.nan}, "batch_size", "got nan"),
    ({"style_image": picture(channels=4)}, "style_image: ", "[1, 96, 80, 4]", "Split Image with Alpha"),
    ({"style_image": picture(channels=1)}, "style_image: ", "[1, 96, 80, 1]", "RGB first"),
    ({"style_image": picture(32, 63)}, "style_image: ", "63 x 32", "at least 64", "larger picture"),
    ({"style_image": picture(value=math.nan)}, "style_image ", "NaN", "check the node that made it"),
    ({"prompt": STYLE + EMPTY}, "prompt: ", "got 2", "Conditioning Combine"),
    ({"rank": 0}, "rank", "got 0", "1..1024"),
    ({"alpha": math.nan}, "alpha", "got nan", "0.01..4096"),
    ({"steps": 0}, "steps", "got 0", "1..100000"),
    ({"learning_rate": 2.0}, "learning_rate", "got 2.0", "1e-08..1"),
    ({"learning_rate": math.inf}, "learning_rate", "got inf", "1e-08..1"),
    ({"weight_decay": -1.0}, "weight_decay", "got -1.0", "0..1"),
    ({"resolution": 32}, "resolution", "got 32", "64..4096"),
    ({"batch_size": 0}, "batch_size", "got 0", "1..64"),
]


@pytest.fixture
def trainings(pack, monkeypatch):
    """The starts of training proper, counted."""
    started = []
    train = pack.host.training.run.train
    monkeypatch.setattr(pack.host.training.run, "train", lambda *args: started.append(1) or train(*args))
    return started


@pytest.mark.parametrize(**table(REFUSED))
def test_refused_before_the_first_step(bench, trainings, host_folders, changes, words):
    with refused(bench, *words):
        bench.train(**changes)
    assert not trainings
    assert files_below(host_folders / "loras") == []


@pytest.mark.parametrize("size", [(64, 64), (2048, 3000), (64, 900)], ids=str)
def test_pictures_of_any_other_size_are_resized_first(bench, size, monkeypatch):
    seen = []
    encode = comfy.sd.VAE.encode
    monkeypatch.setattr(comfy.sd.VAE, "encode", lambda self, pixels: seen.append(pixels.shape) or encode(self, pixels))
    bench.train(style_image=picture(*size), steps=1)
    assert seen == [(1, 64, 64, 3)]


def test_what_training_does_not_use_of_a_prompt_is_said(bench):
    """Every key that is neither refused nor used has its line; a stock prompt has none."""
    unused = {"concat_latent_image": torch.zeros(1, 4, 8, 8), "unclip_conditioning": [{"strength": 1.0}]}
    shown = bench.train_output(prompt=prompt(**unused, guidance=None), save=False).ui["text"][0]
    for key in unused:
        assert f"note: the prompt's '{key}' is not used in training" in shown
    assert "guidance" not in shown
    whole = prompt(pooled_output=POOLED, start_percent=0.0, end_percent=1.0, strength=0.5)
    assert "note" not in bench.train_output(prompt=whole, save=False).ui["text"][0]


def test_a_strength_of_the_only_prompt_changes_nothing(bench):
    """Why it needs no line: it is a share among several prompts, in the host's runs as in training."""
    plain, strong = (bench.train(prompt=prompt(**options), save=False)[0] for options in ({}, {"strength": 0.3}))
    assert all(torch.equal(plain[key], strong[key]) for key in plain)
    ours, theirs = (
        host_nodes.common_ksampler(
            bench.model, 7, 1, 1.0, "euler", "normal", prompt(**options), EMPTY, tiny.make_latent(seed=5, size=8)
        )[0]["samples"]
        for options in ({}, {"strength": 0.3})
    )
    torch.testing.assert_close(ours, theirs)


def test_a_vae_that_gives_nan_is_named(bench, trainings, monkeypatch):
    bad = torch.full((1, 4, 8, 8), math.nan)
    monkeypatch.setattr(comfy.sd.VAE, "encode", lambda self, pixels: bad)
    with refused(bench, "vae: ", "NaN", "fp32"):
        bench.train()
    assert not trainings


def lora_files(folder):
    return [name for name in files_below(folder / "loras") if name.endswith(".safetensors")]


def breaking_at(pack, step):
    """A UNet whose prediction is not finite from that training step on."""
    predict_with = pack.host.training.run.predict_with

    def breaking(*args):
        predict, calls = predict_with(*args), []

        def later_nan(z, t):
            calls.append(t)
            return predict(z, t) * (1.0 if len(calls) <= step else math.nan)

        return later_nan

    return breaking


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(bench, pack, host_folders, monkeypatch):
    monkeypatch.setattr(pack.host.training.run, "predict_with", breaking_at(pack, 2))
    with refused(bench, "learning_rate: ", "step 2 of 5", "0.001", "Lower the learning rate", "_stopped_at_2"):
        bench.train(steps=5)
    (name,) = lora_files(host_folders)
    state, metadata = pack.core.lora.file.read_own(host_folders / "loras" / name)
    assert "_stopped_at_2.safetensors" in name
    assert metadata["stopped_at"] == 2
    assert len(metadata["losses"]) == 2
    assert all(torch.isfinite(t).all() for t in state.values())
    assert folder_paths.get_full_path("loras", name) is not None


def test_without_save_nothing_is_written_when_the_loss_breaks(bench, pack, host_folders, monkeypatch):
    monkeypatch.setattr(pack.host.training.run, "predict_with", breaking_at(pack, 2))
    with refused(bench, "step 2 of 5", "Switch save on"):
        bench.train(steps=5, save=False)
    assert lora_files(host_folders) == []


def test_nothing_good_to_keep_at_the_first_step(bench, pack, host_folders, monkeypatch):
    monkeypatch.setattr(pack.host.training.run, "predict_with", breaking_at(pack, 0))
    with refused(bench, "model: ", "step 0 of 2", "learning rate is not the cause", "no good weights", "precision"):
        bench.train()
    assert lora_files(host_folders) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["weight", "patch"])
def test_weights_that_are_not_finite_are_not_blamed_on_the_learning_rate(bench, trainings, host_folders, where, value):
    model = tiny.make_model("small")
    key = "diffusion_model.output_blocks.2.0.in_layers.2.weight"
    if where == "weight":
        model.model.state_dict()[key].flatten()[3] = value
    else:
        model.add_patches({key: (torch.full(model.model.state_dict()[key].shape, value),)})
    with refused(bench, "model: ", key, "not finite", "Load another checkpoint") as caught:
        bench.train(model=model)
    assert "learning_rate" not in str(caught.value)
    assert not trainings
    assert lora_files(host_folders) == []


def test_an_activation_that_overflows_at_once_is_not_blamed_on_the_learning_rate(bench, host_folders):
    model = tiny.make_model("small")
    model.model.state_dict()["diffusion_model.input_blocks.0.0.weight"].fill_(3e38)
    with refused(bench, "model: ", "step 0 of 2", "learning rate is not the cause", "fp32"):
        bench.train(model=model)
    assert lora_files(host_folders) == []


def test_inpainting_models_are_refused(bench, trainings):
    model = tiny.make_model("small")
    model.model.diffusion_model.in_channels = 9
    with refused(bench, "model: ", "plain text-to-image UNet", "takes 9", "Load the plain checkpoint"):
        bench.train(model=model)
    assert not trainings


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "got none"), ({"pooled_output": torch.zeros(1, 64)}, r"got \[1, 64\]"),
     ({"pooled_output": POOLED * math.nan}, "not finite")],
)  # fmt: skip
def test_sdxls_pooled_embedding_is_checked_before_training(pack, bench, trainings, options, words):
    with pytest.raises(ValueError, match=f"prompt.*{words}"):
        bench.train(model=tiny.make_model("sdxl"), prompt=prompt(**options))
    assert not trainings


def test_sdxl_trains_with_its_pooled_embedding(bench):
    lora = bench.train(model=tiny.make_model("sdxl"), prompt=tiny.make_prompt(1, sdxl=True))[0]
    assert all(torch.isfinite(weight).all() for weight in lora.values())


def test_the_picture_stays_as_it_was(bench):
    before = PICTURE.clone()
    bench.train()
    assert torch.equal(PICTURE, before)
