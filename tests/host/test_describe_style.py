"""Describe Style by a folder: the tokens of a plain transformers call, with a tiny LLaVA; and what the node says."""

from __future__ import annotations

import comfy.model_management as management
import pytest
import tiny_llava
import torch
from describe_bench import RANDOM, plainly

pytest_plugins = ("describe_fixtures",)

QUESTION = "the colors of the image"


@pytest.fixture
def picture(seed):
    return torch.rand(1, 40, 56, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("template", [True, False])
def test_the_answer_is_that_of_plain_transformers(describe_bench, seed, picture, template):
    model, processor = describe_bench.make("tiny", seed, template=template)
    expected = plainly(model, processor, picture, QUESTION, do_sample=False)
    description, answer = describe_bench.run(picture, question=QUESTION)
    assert answer == [expected]
    assert description == [expected]
    assert expected in describe_bench.text


def test_old_files_of_llava_are_completed_from_the_config(describe_bench, seed, picture):
    model, processor = describe_bench.make("tiny", seed, template=False, old=True)
    processor.patch_size, processor.vision_feature_select_strategy = tiny_llava.PATCH, "default"
    processor.num_additional_image_tokens = 1
    expected = plainly(model, processor, picture, QUESTION, do_sample=False)
    assert describe_bench.run(picture, question=QUESTION)[1] == [expected]


def test_random_words_are_those_of_the_seed(describe_bench, seed, picture):
    model, processor = describe_bench.make("tiny", seed)
    torch.manual_seed(7)
    drawn = {"do_sample": True, "temperature": 1.5, "top_p": 0.8, "top_k": 0}
    expected = plainly(model, processor, picture, QUESTION, **drawn)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = describe_bench.run(picture, question=QUESTION, sampling=RANDOM)[1]
    assert first == [expected]
    assert torch.equal(torch.get_rng_state(), before)
    assert describe_bench.run(picture, question=QUESTION, sampling=RANDOM)[1] == first
    others = {describe_bench.run(picture, sampling={**RANDOM, "seed": n})[1][0] for n in range(4)}
    assert len(others) > 1


def test_each_picture_of_a_batch_has_its_own_description(describe_bench, seed):
    batch = torch.stack([torch.zeros(40, 40, 3), torch.ones(40, 40, 3)])
    for number in range(20):  # random weights may say the same of both pictures
        describe_bench.make("tiny", seed + number)
        alone = [describe_bench.run(picture[None])[1][0] for picture in batch]
        if alone[0] != alone[1]:
            break
    assert alone[0] != alone[1]
    assert describe_bench.run(batch)[1] == alone
    describe_bench.run(batch)
    assert "picture 2: " in describe_bench.text


def test_settings_of_the_folder_do_not_change_the_answer(describe_bench, seed, picture):
    """generation_config.json says where answers end, and no more."""
    model, _ = describe_bench.make("tiny", seed)
    plain = describe_bench.run(picture)[1]
    model.generation_config.update(do_sample=True, temperature=3.0, repetition_penalty=9.0, num_beams=2, max_length=3)
    model.generation_config.save_pretrained(describe_bench.folder / "tiny")
    assert describe_bench.run(picture)[1] == plain


def test_words_of_the_content_are_left_out(describe_bench, seed, picture):
    describe_bench.make("tiny", seed)
    (whole,) = describe_bench.run(picture)[1]
    described, answer = describe_bench.run(picture, leave_out="zebra")
    assert described == answer == [whole]
    assert "not named anyway: zebra" in describe_bench.text
    describe_bench.answers(monkey := ["A cat in warm tones. Thick strokes."])
    described, answer = describe_bench.run(picture, leave_out="cat, boat")
    assert described == ["Warm tones. Thick strokes."]
    assert answer == monkey
    assert "left out: A cat\nnot named anyway: boat" in describe_bench.text
    with pytest.raises(ValueError, match=r"leave_out: .*nothing is left of 'A cat in warm tones"):
        describe_bench.run(picture, leave_out="cat, tones, strokes")


def test_a_cut_answer_is_said_to_be(describe_bench, seed, picture):
    describe_bench.make("tiny", seed)
    describe_bench.run(picture, max_length=2)
    assert "note: cut off at max_length, 2 tokens" in describe_bench.text


def test_a_model_that_ends_at_once_is_an_error(describe_bench, seed, picture):
    model, processor = describe_bench.make("tiny", seed)
    model.generation_config.eos_token_id = list(range(len(processor.tokenizer)))
    model.generation_config.save_pretrained(describe_bench.folder / "tiny")
    describe_bench.answers([""])
    with pytest.raises(ValueError, match="no words for picture 1"):
        describe_bench.run(picture)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_the_weights(describe_bench, seed, pack, precision):
    describe_bench.make("tiny", seed)
    model = pack.host.describe.folder_model.FolderModel(describe_bench.folder / "tiny", precision)
    assert model._model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    answer = model.describe(torch.rand(40, 40, 3), describe_bench.request(), lambda count: None)
    assert answer.text


def test_a_model_that_does_not_fit_runs_on_the_cpu(describe_bench, seed, pack, monkeypatch):
    describe_bench.make("tiny", seed)
    monkeypatch.setattr(management, "text_encoder_device", lambda: torch.device("meta"))
    monkeypatch.setattr(management, "get_total_memory", lambda *_: 1000)
    model = pack.host.describe.folder_model.FolderModel(describe_bench.folder / "tiny", "fp32")
    assert "do not fit into meta: it ran on the CPU" in model.notes[0]
    assert model.describe(torch.rand(40, 40, 3), describe_bench.request(), lambda count: None).text


@pytest.mark.parametrize("at", [1, 3])
def test_cancel_is_heard_between_words(describe_bench, seed, picture, at):
    model, _ = describe_bench.make("tiny", seed)
    model.generation_config.eos_token_id = None
    model.generation_config.save_pretrained(describe_bench.folder / "tiny")
    describe_bench.cancel_at(at)
    with pytest.raises(management.InterruptProcessingException):
        describe_bench.run(picture)
    assert len(describe_bench.said) == at
    describe_bench.cancel_at(None)
    assert describe_bench.run(picture)[1]
