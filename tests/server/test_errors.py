"""Errors and Cancel on a real server: they name the node, lose nothing, and do not spoil the next prompt."""

from __future__ import annotations

import pytest

from tests.server.small_run import CAPTURE, INVERT, RESULT, SAMPLER, TRAIN, only, sampled, small_run, with_nodes
from tools.comfy_client import PromptError, PromptInterrupted


def files_of(server, folder):
    return sorted(path.name for path in (server.base_directory / folder).rglob("*") if path.is_file())


ERRORS = {
    "sampler preset": ({"InjectedSampler": {"preset": "paper 1999"}}, SAMPLER, ("preset must be one of", "paper 2026")),
    "capture window": (
        {"Capture": {"attention_end_percent": 0.5}},
        SAMPLER,
        ("step 5 of 10", "Raise attention_end_percent"),
    ),
    "layers": ({"Capture": {"self_attention_layers": "0-11"}}, CAPTURE, ("layers 0-2 do not exist", "3-11")),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_names_its_node_and_keeps_what_was_made(client, case):
    changes, node_id, words = ERRORS[case]
    client.queue(small_run())
    with pytest.raises(PromptError) as caught:
        client.queue(small_run(**changes))
    error = caught.value
    assert (error.node_id, error.exception_type) == (node_id, "ValueError")
    assert [word for word in words if word not in error.message] == [], error.message
    mended = client.queue(small_run())
    assert INVERT in mended.cached
    assert TRAIN in mended.cached or "nothing trained" in mended.text(TRAIN)
    assert mended.images(RESULT)


REFUSED = {
    "steps": ({"DDIMInvert": {"steps": 0}}, INVERT, "steps"),
    "blend": ({"InjectedSampler": {"preset.blend": "soft"}}, SAMPLER, "blend"),
    "window": ({"InjectedSampler": {"preset.feature_end_percent": 30}}, SAMPLER, "preset.feature_end_percent"),
    "capture window": ({"Capture": {"feature_end_percent": 30}}, CAPTURE, "feature_end_percent"),
    "layer list": ({"Capture": {"feature_layers": "4;5"}}, CAPTURE, "feature_layers must be written like"),
    "learning_rate": ({"TrainStyleLoRA": {"learning_rate": 2.0}}, TRAIN, "learning_rate"),
    "prefix": ({"TrainStyleLoRA": {"filename_prefix": "../x"}}, TRAIN, "'../x' is no plain name"),
    "lora_name": ({"InjectedSampler": {"lora_name": "gone.safetensors"}}, SAMPLER, "lora_name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_schema_forbids_is_refused_before_anything_runs(client, case):
    changes, node_id, name = REFUSED[case]
    with pytest.raises(PromptError, match=name) as caught:
        client.queue(small_run(**changes))
    assert (caught.value.node_id, caught.value.exception_type) == (node_id, "not valid")


def test_cancel_while_training_leaves_no_file(server, client):
    before = files_of(server, "models/loras"), files_of(server, "temp/diffstyler")
    long = small_run(TrainStyleLoRA={"steps": 5000, "filename_prefix": "cancelled"})
    seen = []

    def cancel(progress):
        if progress.node_id == TRAIN and progress.event == "step":
            seen.append(progress.value)
            client.interrupt()

    with pytest.raises(PromptInterrupted) as caught:
        client.queue(only(long, TRAIN, RESULT), cancel)
    assert caught.value.node_id == TRAIN
    assert seen[-1] <= 3
    assert (files_of(server, "models/loras"), files_of(server, "temp/diffstyler")) == before


@pytest.mark.parametrize(
    ("node_id", "changes"),
    [(INVERT, {"DDIMInvert": {"refinement": 7}}), (SAMPLER, {"InjectedSampler": {"cfg": 4.5}})],
    ids=["invert", "sampler"],
)
def test_cancel_elsewhere_ends_the_prompt_and_the_next_one_runs(client, node_id, changes):
    def cancel(progress):
        if progress.node_id == node_id and progress.event == "step":
            client.interrupt()

    with pytest.raises(PromptInterrupted) as caught:
        client.queue(small_run(**changes), cancel)
    assert caught.value.node_id == node_id
    assert client.queue(small_run(**changes)).images(RESULT)


def test_errors_and_cancel_leave_the_model_as_it_was(server, client):
    plain = only(with_nodes(small_run(), **sampled(["1", 0], seed=5)), "ks")

    def picture():
        client.free_cache()
        return client.image_bytes(client.queue(plain).images("ks")[0])

    before = picture()
    with pytest.raises(PromptError):
        client.queue(small_run(InjectedSampler={"preset": "paper 1999"}))
    with pytest.raises(PromptError):
        client.queue(with_nodes(plain, f=("ProbeFails", {"words": "another pack"})))
    client.queue(small_run(InjectedSampler={"cfg": 6.5}))
    assert picture() == before
