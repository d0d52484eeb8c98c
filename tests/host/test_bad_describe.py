"""Refusals of Describe Style: named input, received value, remedy; and folders that would do more than weigh."""

from __future__ import annotations

import asyncio
import json
import math

import execution
import pytest
import safetensors.torch
import torch
from describe_bench import LIKELIEST, RANDOM

pytest_plugins = ("describe_fixtures",)

PICTURE = torch.rand(1, 40, 40, 3, generator=torch.Generator().manual_seed(1))
INPUTS = [
    ({"image": torch.full((1, 40, 40, 3), math.nan)}, "image ", "NaN"),
    ({"image": torch.zeros(1, 40, 40, 4)}, "image: ", "[1, 40, 40, 4]"),
    ({"image": torch.zeros(0, 40, 40, 3)}, "image: ", "[0, 40, 40, 3]"),
    ({"question": " \n"}, "question: ", "' \\n'", "Ask for the style"),
    ({"question": "a" * 30000}, "question ", "20000", "30000"),
    ({"leave_out": "\ud800"}, "leave_out", "surrogate"),
    ({"max_length": 0}, "max_length", "got 0"),
    ({"max_length": math.nan}, "max_length", "nan"),
    ({"max_length": 10**6}, "max_length", "2048"),
    ({"sampling": None}, "sampling", "likeliest, random", "None"),
    ({"sampling": {"sampling": "beam"}}, "sampling", "'beam'"),
    ({"sampling": {**RANDOM, "temperature": 0.0}}, "temperature", "got 0"),
    ({"sampling": {**RANDOM, "temperature": math.nan}}, "temperature", "nan"),
    ({"sampling": {**RANDOM, "top_p": 1.5}}, "top_p", "1.5"),
    ({"sampling": {**RANDOM, "seed": -1}}, "seed", "-1"),
    ({"precision": "int4"}, "precision", "'int4'", "bf16"),
    ({"model_folder": "none"}, "model_folder: ", "nothing to describe", "Qwen3-VL"),
    ({"model_folder": "llava-1.5-7b-hf (not installed)"}, "huggingface.co/llava-hf/llava-1.5-7b-hf (14 GB)", "there"),
    ({"model_folder": "mine"}, "'mine'", "vision_language", "llava-1.5-7b-hf", "wire a CLIP"),
    ({"model_folder": "../tiny"}, "model_folder: '../tiny'", "no '..'"),
    ({"model_folder": "/etc"}, "model_folder: '/etc'"),
    ({"model_folder": ""}, "model_folder: ''"),
]


@pytest.mark.parametrize(("changes", "words"), [(row[0], row[1:]) for row in INPUTS])
def test_inputs_are_refused_before_anything_runs(describe_bench, pack, monkeypatch, changes, words):
    monkeypatch.setattr(pack.prompts.describe_style, "by_folder", lambda *_: pytest.fail("it ran before the error"))
    folder = describe_bench.folder / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r".") as caught:
        describe_bench.run(**{"image": PICTURE, **changes})
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.fixture
def tiny(describe_bench):
    describe_bench.make("tiny", 5)
    return describe_bench.folder / "tiny"


def rewritten(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def lacking(folder):
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(dict(list(weights.items())[:-2]), folder / "model.safetensors", {"format": "pt"})


def without(folder, *names):
    for name in names:
        (folder / name).unlink()


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def untold(folder):
    without(folder, "chat_template.jinja")
    processor = json.loads((folder / "processor_config.json").read_text())
    processor.pop("chat_template", None)
    (folder / "processor_config.json").write_text(json.dumps(processor))
    rewritten(folder, model_type="llava_next", architectures=["LlavaNextForConditionalGeneration"])


FOLDERS = {
    "only a pickle": (pickled, "no .safetensors file but pytorch_model.bin", "Get the model's safetensors"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json of 'tiny' cannot be read"),
    "no settings": (lambda f: (f / "config.json").write_text("[]"), "holds no settings"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter"),
    "LLaVA's own layout": (lambda f: rewritten(f, vision_config=None), "as LLaVA's own code saves it", "llava-1.5-7b"),
    "ShareGPT4V's own layout": (lambda f: rewritten(f, model_type="share4v"), "'share4v'", "sharegpt4v-7b-hf"),
    "a text model": (lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}'), "'gpt2'", "Choose another"),
    "an unknown model": (lambda f: rewritten(f, model_type="mine"), "cannot be read by transformers"),
    "weights missing": (lacking, "lack", "weights, e.g. ", "Fetch all of them"),
    "no tokenizer": (lambda f: without(f, "tokenizer.json"), "model_folder: 'tiny'", "Fetch all of the model's files"),
    "no template": (untold, "no chat template"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_unfit_folders_are_refused_by_what_they_lack(describe_bench, tiny, name):
    spoil, *words = FOLDERS[name]
    spoil(tiny)
    with pytest.raises(ValueError, match="model_folder: ") as caught:
        describe_bench.run(PICTURE)
    assert [word for word in words if word not in str(caught.value)] == []


def test_code_in_a_folder_is_not_run(describe_bench, tiny, tmp_path):
    """Neither that of a model that transformers knows, nor that of one that it does not."""
    (plain,) = describe_bench.run(PICTURE)[1]
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nfrom transformers import LlavaConfig as Evil\n"
    (tiny / "evil.py").write_text(code)
    (tiny / "custom_generate").mkdir()
    (tiny / "custom_generate" / "generate.py").write_text(code + "def generate(*a, **k): raise SystemExit\n")
    automatic = {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil", "AutoProcessor": "evil.Evil"}
    rewritten(tiny, auto_map=automatic)
    assert describe_bench.run(PICTURE)[1] == [plain]
    rewritten(tiny, model_type="evil")
    with pytest.raises(ValueError, match="cannot be read by transformers"):
        describe_bench.run(PICTURE)
    assert not (tmp_path / "ran").exists()


def test_a_kernel_that_a_config_names_is_not_fetched(describe_bench, tiny):
    (plain,) = describe_bench.run(PICTURE)[1]
    rewritten(tiny, attn_implementation="someone/kernel", _attn_implementation="someone/kernel")
    assert describe_bench.run(PICTURE)[1] == [plain]


@pytest.mark.parametrize("whole", [True, False])
def test_links_out_of_the_folder_are_refused(describe_bench, tiny, tmp_path, whole):
    moved = tiny if whole else tiny / "model.safetensors"
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"is a link that leads out of models/vision_language.*elsewhere"):
        describe_bench.run(PICTURE)


def test_what_is_typed_is_checked_before_the_run(describe_bench, tiny):
    check = describe_bench.node.validate_inputs
    assert check(model_folder="tiny", leave_out="cat") is True
    assert check(model_folder="none") is True
    assert "huggingface.co" in check(model_folder="SmolVLM-500M-Instruct (not installed)")
    assert "surrogate" in check(leave_out="\ud800")


def test_the_list_marks_what_is_missing(describe_bench, tiny, pack):
    folders = pack.host.describe.folders
    assert "llava-1.5-7b-hf (not installed)" in folders.model_folders()
    assert folders.model_folders()[-2:] == ["tiny", "none"]
    assert folders.default_folder() == "tiny"
    stamp = describe_bench.node.fingerprint_inputs(model_folder="tiny", question="")
    (tiny / "config.json").write_text("{}")
    assert describe_bench.node.fingerprint_inputs(model_folder="tiny") != stamp
    assert LIKELIEST["sampling"] == pack.prompts.describe_style.LIKELIEST


def test_the_host_queues_it_with_its_ways_of_sampling(describe_bench, tiny):
    """The host hands a dynamic combo to validate_inputs unasked."""
    inputs = {"question": "a", "leave_out": "", "max_length": 9, "model_folder": "none", "precision": "auto"}
    drawn = {"sampling.temperature": 0.7, "sampling.top_p": 0.9, "sampling.seed": 1}
    for given in ({"sampling": "likeliest"}, {"sampling": "random", **drawn}):
        node = {"class_type": "DiffStyler_DescribeStyle", "inputs": {**inputs, **given}}
        _, errors, _ = asyncio.run(execution.validate_inputs("p", {"1": node}, "1", {}))
        assert [error["type"] for error in errors] == ["required_input_missing"]  # image
    spoiled = {**node, "inputs": {**node["inputs"], "model_folder": "SmolVLM-500M-Instruct (not installed)"}}
    _, errors, _ = asyncio.run(execution.validate_inputs("p", {"1": spoiled}, "1", {}))
    assert any("huggingface.co" in error["details"] for error in errors)
