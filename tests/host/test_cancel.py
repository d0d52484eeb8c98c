"""Cancel at any moment of any node: it passes through, and nothing is left behind."""

from __future__ import annotations

import threading

import comfy.model_management as management
import comfy.sd
import pytest
import torch
from node_bench import STEPS, files_below

pytest_plugins = ("guards",)

Interrupted = management.InterruptProcessingException


@pytest.fixture(scope="module")
def made(shared_bench):
    trajectory = shared_bench.invert()[0]
    return {"trajectory": trajectory, "features": shared_bench.capture(trajectory)[0]}


@pytest.fixture(autouse=True)
def nothing_left(host_folders):
    """No file in models/loras or temp after a cancelled run, no thread, and no interrupt that waits for the next."""
    yield
    assert [thread.name for thread in threading.enumerate() if "read-ahead" in thread.name] == []
    left = [n for folder in ("loras", "temp") for n in files_below(host_folders / folder)]
    assert [n for n in left if n not in ("DiffStyler", "diffstyler")] == []
    assert not management.processing_interrupted()


RUNS = {
    "invert": (lambda bench, made: bench.invert(), STEPS),
    "invert and reconstruct": (lambda bench, made: bench.invert(reconstruct=True, refinement=1), 3 * STEPS),
    "capture": (lambda bench, made: bench.capture(made["trajectory"]), STEPS),
    "capture on disk": (lambda bench, made: bench.capture(made["trajectory"], storage="disk"), STEPS),
    "sampler": (lambda bench, made: bench.sampler(made["features"]), STEPS),
    "sampler, from disk": (
        lambda bench, made: bench.sampler(bench.capture(made["trajectory"], storage="disk")[0]),
        2 * STEPS,
    ),
    "sampler, recomputing": (
        lambda bench, made: bench.sampler(bench.capture(made["trajectory"], storage="recompute")[0]),
        2 * STEPS,
    ),
}


def cancel_at(bench, at):
    """Presses Cancel right before the at-th evaluation from now."""
    start = bench.evaluations

    def press(count):
        if count - start == at:
            management.interrupt_current_processing(True)

    bench.at_evaluation = press


@pytest.mark.parametrize("moment", ["first", "middle", "last"])
@pytest.mark.parametrize("run", RUNS)
def test_cancel_passes_through_and_leaves_nothing(bench, made, run, moment):
    start, whole = RUNS[run]
    at = {"first": 1, "middle": whole // 2, "last": whole}[moment]
    cancel_at(bench, at)
    before = bench.evaluations
    with pytest.raises(Interrupted):
        start(bench, made)
    assert bench.evaluations - before == at


@pytest.mark.parametrize("run", RUNS)
def test_a_cancelled_run_can_be_repeated(bench, made, run):
    start, whole = RUNS[run]
    first = start(bench, made)
    cancel_at(bench, whole // 2)
    with pytest.raises(Interrupted):
        start(bench, made)
    bench.at_evaluation = lambda count: None
    again = start(bench, made)
    if run.startswith("sampler"):
        assert torch.equal(first[0]["samples"], again[0]["samples"])
    del first, again


@pytest.fixture
def training_calls(pack, monkeypatch):
    """The training UNet's evaluations; ``cancel_at`` names the one before which Cancel is pressed."""
    predict_with, calls = pack.host.training.run.predict_with, []

    def counted(*args):
        predict = predict_with(*args)

        def run(z, t):
            calls.append(t)
            if len(calls) == counted.cancel_at:
                management.interrupt_current_processing(True)
            return predict(z, t)

        return run

    counted.cancel_at, counted.calls = 0, calls
    monkeypatch.setattr(pack.host.training.run, "predict_with", counted)
    return counted


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_training_stops_within_one_step(bench, training_calls, host_folders, at, save, gradient_checkpointing):
    training_calls.cancel_at = at
    with pytest.raises(Interrupted):
        bench.train(steps=5, save=save, gradient_checkpointing=gradient_checkpointing)
    assert len(training_calls.calls) == at
    assert files_below(host_folders / "loras") == [], "not even the folder that the LoRA would have gone to"


def test_training_stops_while_it_renders_a_preview(bench, training_calls):
    training_calls.cancel_at = 1 + 4
    with pytest.raises(Interrupted):
        bench.train(steps=5, preview_every=1)
    assert len(training_calls.calls) == 5


def test_cancel_while_the_style_is_encoded(bench, monkeypatch, training_calls):
    encode = comfy.sd.VAE.encode

    def press(self, pixels):
        management.interrupt_current_processing(True)
        return encode(self, pixels)

    monkeypatch.setattr(comfy.sd.VAE, "encode", press)
    with pytest.raises(Interrupted):
        bench.train()
    assert not training_calls.calls
