"""The whole one-style graph on a real server: results, words, what is saved, what is cached and what is not."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.server.small_run import CAPTURE, INVERT, RESULT, SAMPLER, TRAIN, only, sampled, small_run, with_nodes
from tools.pack_server import pack_server
from tools.workflow_api import set_input

EVERYTHING = set(small_run())
SAMPLED = {SAMPLER, "14", RESULT}


@pytest.fixture
def first(client):
    """The plain run just happened, so that the host's cache (it keeps little more than the last prompt) holds it."""
    return client.queue(small_run())


def loras_of(server):
    folder = server.base_directory / "models" / "loras"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def pixels(server, image):
    with Image.open(io.BytesIO(server.client.image_bytes(image))) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def test_the_run_makes_a_picture_of_the_contents_size(server, first):
    (image,) = first.images(RESULT)
    picture = pixels(server, image)
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 5


WORDS = {
    TRAIN: ("trained 3 steps in ", "loss 0.", "saved as DiffStyler/style_", ".safetensors"),
    INVERT: ("10 steps, 10 UNet evaluations", "MB", "reconstruction ", "dB PSNR"),
    CAPTURE: (
        "self-attention of layers 9-11, 10 of 10",
        "layers auto: feature none, self-attention 9-11",
        "MB in memory",
    ),
    SAMPLER: ("10 steps", "T_a = 500"),
}


def test_the_words_of_the_nodes_are_in_the_history(client):
    result = client.queue(small_run(TrainStyleLoRA={"seed": 1}))
    for node_id, words in WORDS.items():
        assert [word for word in words if word not in result.text(node_id)] == [], result.text(node_id)


def test_the_same_prompt_again_is_all_cached_and_keeps_its_words(client, first):
    again = client.queue(small_run())
    assert again.cached == EVERYTHING
    assert {node_id: again.text(node_id) for node_id in WORDS} == {node_id: first.text(node_id) for node_id in WORDS}


@pytest.mark.parametrize(
    "changes", [{"preset.attention_end_percent": 0.4}, {"preset": "paper 2024"}, {"cfg": 2.0}], ids=str
)
def test_a_change_of_the_sampler_redoes_the_sampler_only(client, first, changes):
    assert client.queue(small_run(InjectedSampler=changes)).cached == EVERYTHING - SAMPLED


def test_a_change_of_the_prompt_does_not_retrain(client, first):
    prompt = small_run()
    set_input(prompt, "Prompt", "text", "painting of <sss>, a fox")
    result = client.queue(prompt)
    assert result.cached == EVERYTHING - SAMPLED - {"8"}
    assert result.text(TRAIN) == first.text(TRAIN)


def test_another_content_does_not_retrain(client, first):
    prompt = small_run()
    set_input(prompt, "DiffStyler_ScalePicture", "shape", "keep aspect")
    assert {TRAIN, "5", "7"} <= client.queue(prompt).cached


def test_a_change_of_the_capture_does_not_invert_again(client, first):
    result = client.queue(small_run(Capture={"storage": "disk"}))
    assert result.cached == EVERYTHING - SAMPLED - {CAPTURE}
    assert "MB in disk (fp16)" in result.text(CAPTURE)


def lora_name(result):
    return re.search(r"(?:saved as|loaded) ([^,\s]+)", result.text(TRAIN))[1]


def test_the_saved_lora_is_a_file_that_the_stock_loader_takes(server, client, first):
    assert lora_name(first) in loras_of(server)
    loader = {"model": ["1", 0], "clip": ["1", 1], "lora_name": lora_name(first)}
    loader |= {"strength_model": 20.0, "strength_clip": 0.0}
    plain = client.queue(only(with_nodes(small_run(), **sampled(["1", 0])), "ks"))
    before = len(server.log_text())
    styled = with_nodes(small_run(), l=("LoraLoader", loader), **sampled(["l", 0]))
    result = client.queue(only(styled, "ks"))
    assert "lora key not loaded" not in server.log_text()[before:]
    assert np.abs(pixels(server, result.images("ks")[0]) - pixels(server, plain.images("ks")[0])).max() > 0


def test_the_noise_is_one_that_ksampler_advanced_continues_from(server, client, first):
    settings = {"add_noise": "disable", "noise_seed": 0, "steps": 10, "cfg": 1.0, "sampler_name": "ddim"}
    settings |= {"scheduler": "ddim_uniform", "start_at_step": 0, "end_at_step": 10000}
    settings |= {"return_with_leftover_noise": "disable", "model": ["1", 0]}
    settings |= {"positive": ["6", 0], "negative": ["6", 0], "latent_image": [INVERT, 1]}
    decoded = {"kd": ("VAEDecode", {"samples": ["k", 0], "vae": ["1", 2]})}
    saved = {"ks": ("SaveImage", {"images": ["kd", 0], "filename_prefix": "again"})}
    content = {"cs": ("SaveImage", {"images": ["16", 0], "filename_prefix": "content"})}
    prompt = with_nodes(small_run(), k=("KSamplerAdvanced", settings), **decoded, **saved, **content)
    result = client.queue(only(prompt, "ks", "cs"))
    back, original = (pixels(server, result.images(node)[0]) for node in ("ks", "cs"))
    error = np.abs(back - original).mean()
    assert error < 0.6 * np.abs(original - original.mean()).mean(), "the content does not come back from x_T"


def test_the_hosts_own_lora_nodes_take_our_outputs(server, client, first):
    load = {"model": ["1", 0], "lora": [TRAIN, 0], "strength_model": 1.0, "bypass": False}
    prompt = with_nodes(
        small_run(),
        save=("SaveLoRA", {"lora": [TRAIN, 0], "prefix": "loras/host_saved"}),
        plot=("LossGraphNode", {"loss": [TRAIN, 1], "filename_prefix": "loss"}),
        load=("LoraModelLoader", load),
        name=("PreviewAny", {"source": [TRAIN, 2]}),
        **sampled(["load", 0]),
    )
    result = client.queue(only(prompt, "save", "plot", "ks", "name"))
    assert TRAIN in result.cached
    assert result.images("plot")
    assert result.images("ks")
    assert result.text("name") == lora_name(first)
    assert list((server.base_directory / "output" / "loras").glob("host_saved*"))


def test_after_a_restart_the_same_request_loads_its_lora(server, first, tmp_path):
    source = server.base_directory / "models" / "loras" / lora_name(first)
    target = tmp_path / "models" / "loras" / lora_name(first)
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    prompt = with_nodes(small_run(), name=("PreviewAny", {"source": [TRAIN, 2]}))
    with pack_server(tmp_path) as restarted:
        result = restarted.client.queue(only(prompt, "name"))
    loaded = f"unchanged request: loaded {lora_name(first)}, nothing trained"
    assert result.text(TRAIN) == f"{loaded}\nauto: learning rate 0.006"
    assert result.text("name") == lora_name(first)
