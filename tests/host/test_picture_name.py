"""The name of a LoRA's file: the style picture's, traced through prompts as the editor and other clients send them."""

from __future__ import annotations

import pytest
import steps
import tiny
from node_bench import PICTURE

pytest_plugins = ("guards",)


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def load(image):
    return node("LoadImage", image=image)


TRAIN = node("DiffStyler_TrainStyleLoRA", style_image=["1", 0], prompt=["p", 0], steps=3)
CASES = [
    ({"1": load("ink drawing.png")}, "ink-drawing"),
    ({"1": load("sub/Ink_2.v3.JPG [output]")}, "Ink_2.v3"),
    ({"1": load("Tusche \u58a8.webp")}, "Tusche-\u58a8"),
    ({"1": load("...png")}, ""),
    ({"1": load("a/../..\\x$(rm -rf)*.png")}, "x-rm--rf"),
    ({"1": load("w" * 300 + ".png")}, "w" * 60),
    ({"1": load("\u58a8" * 50 + ".png")}, "\u58a8" * 20),
    ({"1": node("DiffStyler_ExamplePicture", picture="style_mosaic.jpg")}, "style_mosaic"),
    ({"1": node("ImageScale", image=["2:5", 0], width=64), "2:5": load("oil.png")}, "oil"),
    (
        {
            "1": node("ImageCrop", image=["2", 0]),
            "2": node("ImageScale", image=["3", 0]),
            "3": load("oil.png"),
        },
        "oil",
    ),
    ({"1": node("ImageBatch", image1=["2", 0], image2=["3", 0]), "2": load("a.png"), "3": load("b.png")}, "a"),
    ({"1": node("ImageBatch", image1=["2", 0], image2=["3", 0]), "2": node("EmptyImage"), "3": load("b.png")}, "b"),
    (
        {
            "1": node("ImageCompositeMasked", mask=["2", 1], destination=["3", 0], source=["2", 0]),
            "2": load("mask.png"),
            "3": load("painting.png"),
        },
        "painting",
    ),
    ({"1": node("VAEDecode", samples=["2", 0]), "2": node("VAEEncode", pixels=["3", 0]), "3": load("a.png")}, ""),
    ({"1": node("EmptyImage", color=0)}, ""),
    ({"1": node("ImageScale", image=["2", 0]), "2": node("NoSuchNode", file="a.png")}, ""),
    ({"1": node("ImageScale", image=["1", 0])}, ""),
    ({"1": node("ImageScale", image=["9", 0])}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("upstream", "name"), CASES)
@pytest.mark.parametrize("node_id", ["10", "7:10"])
def test_the_first_picture_upstream_names_it(pack, upstream, name, node_id):
    prompt = {node_id: TRAIN, **upstream}
    module = pack.host.training.picture_name
    assert module.traced_name(prompt, node_id, "style_image") == name
    prefix = module.resolved("a/%style_image%-lora", prompt, node_id, "style_image")
    assert prefix == f"a/{name or 'style'}-lora"
    assert pack.host.training.store.safe_prefix(prefix) == prefix


@pytest.mark.parametrize("prompt", [None, {}, {"10": node("DiffStyler_TrainStyleLoRA", style_image=5)}, {"10": {}}])
def test_prompts_without_a_wire_have_the_plain_name(pack, prompt):
    resolved = pack.host.training.picture_name.resolved
    assert resolved("%style_image%", prompt, "10", "style_image") == "style"
    assert resolved("x/y", prompt, "10", "style_image") == "x/y"


class Trained:
    """Train Style LoRA as the host runs it: with the prompt in its hidden inputs."""

    def __init__(self, pack) -> None:
        self.pack, self.model, self.vae = pack, tiny.make_model("small"), tiny.make_vae()

    def __call__(self, monkeypatch, file, **changes):
        node_class = self.pack.pipeline.train.TrainStyleLoRA
        prompt = {"10": TRAIN, "1": load(file)}
        hidden = type("Hidden", (), {"unique_id": "10", "prompt": prompt})
        monkeypatch.setattr(node_class, "hidden", hidden, raising=False)
        prefix = {"filename_prefix": "DiffStyler/%style_image%", **changes}
        return steps.train(self.pack, self.model, self.vae, PICTURE, tiny.make_prompt(1), **prefix)[2]


def test_the_file_has_the_pictures_name_and_a_renamed_picture_is_not_trained_again(pack, monkeypatch, host_folders):
    train, started = Trained(pack), []
    inner = pack.host.training.run.train
    monkeypatch.setattr(pack.host.training.run, "train", lambda *args: started.append(1) or inner(*args))
    name = train(monkeypatch, "ink drawing.png")
    assert name.startswith("DiffStyler/ink-drawing_")
    assert (host_folders / "loras" / name).is_file()
    assert train(monkeypatch, "ink drawing.png") == name
    assert train(monkeypatch, "renamed.png") == name
    assert len(started) == 1
    assert train(monkeypatch, "renamed.png", seed=1).startswith("DiffStyler/renamed_")
    assert len(started) == 2


def test_a_rescued_lora_of_any_picture_runs_the_node_again(pack, host_folders):
    folder = host_folders / "temp" / "diffstyler" / "loras"
    folder.mkdir(parents=True)
    (folder / "ink-drawing_0123456789ab.safetensors").write_bytes(b"")
    waiting = pack.pipeline.train.TrainStyleLoRA.fingerprint_inputs
    assert waiting(save=True, filename_prefix="DiffStyler/%style_image%")
    assert waiting(save=True, filename_prefix="DiffStyler/ink-%style_image%")
    assert not waiting(save=True, filename_prefix="DiffStyler/oil-%style_image%")


def test_the_default_prefix_has_the_token(pack):
    (prefix,) = [i for i in pack.pipeline.train.TrainStyleLoRA.define_schema().inputs if i.id == "filename_prefix"]
    assert prefix.default == "DiffStyler/%style_image%"
