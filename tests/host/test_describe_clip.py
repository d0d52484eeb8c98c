"""Describe Style by a wired CLIP: the stock Generate Text's answer, from a tiny Qwen3-VL of the host; and refusals."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management as management
import comfy.sd
import pytest
import tiny_clip
import torch
from describe_bench import LENGTH, LIKELIEST, RANDOM
from versions import require_host

require_host("0.30.0", "Qwen3-VL, the text encoder that these tests are made of")

from comfy.text_encoders import qwen3vl, qwen_image  # noqa: E402
from comfy_extras.nodes_textgen import TextGenerate  # noqa: E402

pytest_plugins = ("describe_fixtures",)

KIND = "qwen3vl_4b"
TEXT = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
VISION = {"hidden_size": 64, "intermediate_size": 64, "depth": 2, "deepstack_visual_indexes": [0]}
QUESTION = "Which colours?"


@pytest.fixture(scope="module")
def sees():
    """A CLIP of the host's own class for Qwen3-VL 4B, of two layers, with random weights."""
    small = pytest.MonkeyPatch()
    small.setitem(qwen3vl.QWEN3VL_VISION, KIND, VISION)
    small.setitem(qwen3vl.QWEN3VL_VISION_COMMON, "num_heads", 2)
    target = SimpleNamespace(params={}, clip=qwen3vl.te(model_type=KIND), tokenizer=qwen3vl.tokenizer(KIND))
    clip = comfy.sd.CLIP(target, parameters=1, model_options={f"{KIND}_model_config": TEXT})
    small.undo()
    torch.manual_seed(4)
    for name, weights in clip.cond_stage_model.named_parameters():
        weights.data.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.2)
    return clip


def stock(clip, image, sampling):
    return TextGenerate.execute(clip, QUESTION, LENGTH, sampling, image=image).result[0].strip()


@pytest.mark.parametrize("drawn", [False, True])
def test_the_answer_is_that_of_the_stock_node(describe_bench, sees, seed, drawn):
    image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(seed))
    theirs = {
        "sampling_mode": "on", "temperature": 1.5, "top_p": 0.8, "seed": 7, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0,
    } if drawn else {"sampling_mode": "off"}  # fmt: skip
    expected = stock(sees, image, theirs)
    ours = RANDOM if drawn else LIKELIEST
    described = describe_bench.run(image, clip=sees, model_folder="none", question=QUESTION, sampling=ours)
    assert described[1] == [expected]
    assert describe_bench.run(image, clip=sees, model_folder="none", question=QUESTION, sampling=ours)[1] == [expected]


def test_the_picture_is_looked_at_each_on_its_own(describe_bench, sees):
    batch = torch.stack([torch.zeros(64, 64, 3), torch.rand(64, 64, 3), torch.ones(64, 64, 3)])
    answers = describe_bench.run(batch, clip=sees, model_folder="none", question=QUESTION)[1]
    assert answers == [stock(sees, picture[None], {"sampling_mode": "off"}) for picture in batch]
    assert len(set(answers)) > 1


def test_cancel_is_heard(describe_bench, sees):
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        describe_bench.run(torch.rand(1, 64, 64, 3), clip=sees, model_folder="none")


def test_both_at_once_are_refused(describe_bench, sees):
    with pytest.raises(ValueError, match=r"model_folder: both a wired CLIP and the model 'tiny'.*'none'"):
        describe_bench.run(torch.rand(1, 64, 64, 3), clip=sees, model_folder="tiny")


def test_a_clip_that_writes_nothing_is_refused(describe_bench, tmp_path):
    clip = tiny_clip.host_text(tiny_clip.make_folder(tmp_path / "clip"))
    with pytest.raises(ValueError, match=r"clip: SD1Tokenizer cannot describe a picture.*Qwen3-VL.*model_folder"):
        describe_bench.run(torch.rand(1, 64, 64, 3), clip=clip, model_folder="none")


def test_a_clip_that_drops_the_picture_is_refused(describe_bench, sees, monkeypatch):
    """Qwen-Image's tokenizer: its text encoder could look, but Generate Text's picture never gets there."""
    monkeypatch.setattr(sees, "tokenizer", qwen_image.QwenImageTokenizer())
    monkeypatch.setattr(type(sees), "generate", lambda *_, **__: pytest.fail("it ran before the error"))
    with pytest.raises(ValueError, match=r"clip: QwenImageTokenizer .* leaves the picture out"):
        describe_bench.run(torch.rand(1, 64, 64, 3), clip=sees, model_folder="none")


def test_the_clip_is_as_before(describe_bench, sees):
    before = {key: weight.clone() for key, weight in sees.cond_stage_model.state_dict().items()}
    describe_bench.run(torch.rand(1, 64, 64, 3), clip=sees, model_folder="none")
    after = sees.cond_stage_model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
