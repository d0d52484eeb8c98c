"""What a run takes of a capture: each tensor once, read ahead where it is on disk, and nothing left when it ends."""

from __future__ import annotations

import threading
from collections import Counter

import apply_bench
import pytest
import steps
import tiny
import torch
from node_bench import STEPS

pytest_plugins = ("guards",)


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    assert [thread.name for thread in threading.enumerate() if "read-ahead" in thread.name] == []


@pytest.fixture
def read(pack, monkeypatch):
    """(step, name of the thread, tensors) of everything that is read from disk."""
    store, seen = pack.core.injection.disk.DiskStore, []
    tensors = store.tensors

    def counted(self, step, which=None, room=None):
        found = tensors(self, step, which, room)
        seen.append((step, threading.current_thread().name, len(found)))
        return found

    monkeypatch.setattr(store, "tensors", counted)
    return seen


def bound(pack, monkeypatch, nbytes: int) -> None:
    read_ahead = pack.host.sampling.held.ReadAhead
    monkeypatch.setattr(pack.host.sampling.held, "ReadAhead", lambda: read_ahead(nbytes))


def test_each_step_is_read_once_and_before_it_is_needed(bench, read):
    features = bench.capture(storage="disk")[0]
    memory = bench.capture(storage="memory")[0]
    read.clear()
    found = bench.sampler(features=features)[0]["samples"]
    assert Counter(step for step, _, _ in read) == dict.fromkeys(range(STEPS), 1)
    assert [name == "MainThread" for _, name, _ in sorted(read)] == [True] + [False] * (STEPS - 1)
    assert torch.equal(found, bench.sampler(features=memory)[0]["samples"])


def test_what_the_plan_does_not_take_is_not_read(pack, bench, read):
    """Features in one step of four, attention in two: one tensor of 1 + 2 pairs; nothing of the last two steps."""
    features = bench.capture(storage="disk")[0]
    feature, attention = len(features.request.feature_sites), len(features.request.attention_sites)
    assert min(feature, attention) > 0
    read.clear()
    bench.sampler(features=features, feature_steps=1, attention_steps=2, attention_mode="fixed")
    assert sorted((step, count) for step, _, count in read) == [(0, feature + 2 * attention), (1, 2 * attention)]


def test_a_step_larger_than_the_bound_is_read_when_it_is_needed(pack, bench, read, monkeypatch):
    features = bench.capture(storage="disk")[0]
    whole = bench.sampler(features=features)[0]["samples"]
    read.clear()
    bound(pack, monkeypatch, 10)
    assert torch.equal(bench.sampler(features=features)[0]["samples"], whole)
    assert [(step, name) for step, name, _ in read] == [(step, "MainThread") for step in range(STEPS)]


def test_a_run_by_another_samplers_levels_reads_a_step_once(pack, seed, read):
    """12 steps over 4 captured ones, each between two of them; a sampler of second order visits each level twice."""
    model, prompts = tiny.make_model("small", seed=seed), [tiny.make_prompt(seed + i) for i in range(2)]
    trajectory = steps.invert(pack, model, tiny.make_latent(seed, 8), prompts[0])[0]
    made = {}
    for storage in ("memory", "disk"):
        features = steps.capture(pack, model, trajectory, prompts[0], storage=storage, feature_steps=STEPS)
        patched = apply_bench.injected(pack, model, features)
        latent = {"samples": trajectory.noise}
        made[storage] = apply_bench.ksampler(patched, *prompts, latent, sampler="heun", scheduler="normal", count=12)
    assert torch.equal(made["memory"], made["disk"])
    assert Counter(step for step, _, _ in read) == dict.fromkeys(range(STEPS), 1)


def test_nothing_is_copied_on_the_cpu_where_the_format_fits(pack, bench):
    """The taps are given the very tensors of the store; of another format, each is cast once a level for all."""
    branches, held = pack.host.sampling.branches, pack.host.sampling.held
    level = pack.core.injection.between.Level
    for precision, same in (("fp32", True), ("fp16", False)):
        features = bench.capture(precision=precision)[0]
        content = branches.Content(bench.model, features, features.trajectory, "features")
        site = features.request.attention_sites[0]
        used = {site: frozenset({0, 1})}
        stored = held.HeldSteps(bench.model.model, torch.device("cpu"))
        stored.go_to({held.Step(content, 1): used}, {})
        given = stored.at(content, level(1.0, 1, 1.0), used)
        assert list(given) == [site]
        assert all((a is b) == same for a, b in zip(given[site], features.at(1)[site], strict=True))
        assert all(a is b and a.dtype == torch.float32 for a, b in zip(given[site], given[site], strict=True))
        stored.close()


def test_a_step_stays_from_level_to_level_and_no_longer(pack, bench, read):
    held = pack.host.sampling.held
    features = bench.capture(storage="disk")[0]
    content = pack.host.sampling.branches.Content(bench.model, features, features.trajectory, "features")
    site, other = features.request.attention_sites
    needs = lambda *steps, site=site: {held.Step(content, step): {site: frozenset({0, 1})} for step in steps}  # noqa: E731
    read.clear()
    stored = held.HeldSteps(bench.model.model, torch.device("cpu"))
    for steps_of_level, expected in (
        ((0,), [0]),
        ((0, 1), [1]),
        ((1, 0), []),
        ((1,), []),
        ((1, 2), [2]),
        ((0, 1), [0]),
    ):
        stored.go_to(needs(*steps_of_level), {})
        assert [step for step, _, _ in read] == expected
        read.clear()
    stored.go_to(needs(1, site=other), {})
    assert [(step, count) for step, _, count in read] == [(1, 2)], "the site that it lacks"
    stored.close()


def test_where_no_memory_can_be_pinned_it_goes_on_without(pack, bench, monkeypatch, caplog):
    """As on a machine without a GPU, whose host is made to believe in pinned memory."""
    if torch.cuda.is_available():
        pytest.skip("there is pinned memory here")
    features = bench.capture()[0]
    whole = bench.sampler(features=features)[0]["samples"]
    believing = pack.host.sampling.held.HeldSteps

    def made(*args):
        with monkeypatch.context() as patch:
            patch.setattr(pack.host.sampling.held.management, "MAX_PINNED_MEMORY", 1e9)
            patch.setattr(pack.host.sampling.held.management, "is_device_cuda", lambda device: True)
            return believing(*args)

    monkeypatch.setattr(pack.host.sampling.branch_run, "HeldSteps", made)
    assert torch.equal(bench.sampler(features=features)[0]["samples"], whole)
    assert len([record for record in caplog.records if "memory that is not pinned" in record.message]) == 1


def test_the_host_is_asked_for_the_room_that_a_level_takes(pack, bench, monkeypatch):
    """As it counts a control's memory: exactly the tensors of the largest step, or of two and what is between."""
    management, asked = pack.host.sampling.held.management, []
    load = management.load_models_gpu

    def loads(models, memory_required=0, *args, **more):
        asked.append(memory_required)
        return load(models, memory_required, *args, **more)

    monkeypatch.setattr(management, "load_models_gpu", loads)

    def room(run) -> float:
        asked.clear()
        run()
        return asked[-1]

    positive, negative = tiny.make_prompt(1), tiny.make_prompt(2)
    features = bench.capture(precision="fp32")[0]
    trajectory = features.trajectory
    step = sum(tensor.nbytes for tensor in features.store.tensors(0))
    sampler = lambda chosen: room(lambda: bench.sampler(features=chosen))  # noqa: E731
    plain = sampler(trajectory)
    assert sampler(features) - plain == step
    assert sampler(bench.capture(precision="fp16")[0]) - plain == 1.5 * step, "in its own format and in the model's"
    assert sampler(bench.capture(storage="disk", precision="fp32")[0]) - plain == step
    assert sampler(bench.capture(storage="recompute")[0]) - plain >= step, "and the content's own prompt"
    for between, sets in (("nearest", 1), ("interpolated", 3)):
        patched = apply_bench.injected(pack, bench.model, features, between=between)
        run = lambda model: room(lambda: apply_bench.at_own_levels(model, trajectory, positive, negative))  # noqa: E731
        assert run(patched) - run(bench.model) == sets * step


def test_the_room_on_another_device_is_as_large(pack):
    """The host gives each device of a run its own copy of a control."""
    made = pack.host.sampling.room.FeaturesRoom(7)
    clone = made.deepclone_multigpu(torch.device("cpu"), autoregister=True)
    assert (clone.inference_memory_requirements(torch.float16), clone.get_models()) == (7, [])
    assert made.get_instance_for_device(torch.device("cpu")) is clone
