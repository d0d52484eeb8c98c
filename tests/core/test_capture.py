"""Captures: requests, stores, and what a plan needs of them."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.trajectory import Trajectory
from diffstyler_core.injection.capture import Capture, CaptureRequest, DiskStore, MemoryStore, flatten
from diffstyler_core.injection.plan import InjectionPlan
from diffstyler_core.injection.sites import Site

FEATURE, OTHER = Site("feature", 4), Site("feature", 7)
ATTENTION, DEEPER = Site("self-attention", 5), Site("self-attention", 5, 1)
SCHEDULE = NoiseSchedule.leading([1.0 - (i + 1) / 1001 for i in range(1000)], "eps", 4)
TRAJECTORY = Trajectory((torch.zeros(1, 4, 2, 2),) * 5, SCHEDULE)


def drawn(seed: int, request: CaptureRequest, dtype: torch.dtype = torch.float32) -> list[dict]:
    """Per step, tensors for every requested site."""
    generator = torch.Generator().manual_seed(seed)

    def tensors(site: Site) -> tuple:
        shape = (1, 3, 2, 2) if site.kind == "feature" else (1, 4, 6)
        count = 1 if site.kind == "feature" else 2
        return tuple(torch.randn(shape, generator=generator).to(dtype) for _ in range(count))

    return [{site: tensors(site) for site in request.sites_at(step)} for step in range(request.steps())]


def flat(taken: list[dict], request: CaptureRequest) -> list:
    return [flatten(step, request.sites_at(i)) for i, step in enumerate(taken)]


@pytest.mark.parametrize(
    ("features", "attention", "steps"),
    [(3, 4, 4), (4, 2, 4), (0, 2, 2), (1, 0, 1), (4, 4, 4)],
)
def test_requests_take_only_what_a_window_can_use(features, attention, steps):
    request = CaptureRequest((FEATURE,), (ATTENTION, DEEPER), features, attention)
    request.check(4)
    assert request.steps() == steps
    for step in range(4):
        expected = ((FEATURE,) if step < features else ()) + ((ATTENTION, DEEPER) if step < attention else ())
        assert request.sites_at(step) == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (CaptureRequest((FEATURE,), (), 5, 0), r"feature_steps must lie in 0\.\.4 .*got 5"),
        (CaptureRequest((FEATURE,), (), -1, 0), r"feature_steps must lie in 0\.\.4 .*got -1"),
        (CaptureRequest((), (ATTENTION,), 0, 9), r"attention_steps must lie in 0\.\.4 .*got 9"),
        (CaptureRequest((), (), 4, 4), "nothing to capture"),
        (CaptureRequest((FEATURE,), (ATTENTION,), 0, 0), "nothing to capture"),
        (CaptureRequest((FEATURE,), (), 0, 4), "nothing to capture"),
    ],
)
def test_requests_refuse(request_, message):
    with pytest.raises(ValueError, match=message):
        request_.check(4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_both_stores_give_back_the_bits(seed, tmp_path, dtype):
    request = CaptureRequest((FEATURE, OTHER), (ATTENTION, DEEPER), 2, 4)
    taken = drawn(seed, request, dtype)
    size = sum(t.numel() * t.element_size() for step in taken for ts in step.values() for t in ts)
    memory = MemoryStore(flat(taken, request))
    disk = DiskStore(tmp_path / "capture", flat(taken, request))
    assert memory.nbytes == disk.nbytes == size
    for store in (memory, disk):
        capture = Capture(TRAJECTORY, request, None, store)
        for step, expected in enumerate(taken):
            found = capture.at(step)
            assert found.keys() == expected.keys()
            for site, tensors in expected.items():
                assert all(torch.equal(a, b) for a, b in zip(found[site], tensors, strict=True))


def test_a_recomputed_capture_has_nothing_to_read():
    capture = Capture(TRAJECTORY, CaptureRequest((FEATURE,), (), 1, 0), None, None)
    with pytest.raises(ValueError, match="stores nothing"):
        capture.at(0)


def test_files_go_when_the_capture_goes(tmp_path):
    request = CaptureRequest((FEATURE,), (), 4, 0)
    capture = Capture(TRAJECTORY, request, None, DiskStore(tmp_path / "capture", flat(drawn(0, request), request)))
    assert len(list((tmp_path / "capture").iterdir())) == 4
    del capture
    gc.collect()
    assert not (tmp_path / "capture").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_files_go_when_capturing_breaks(tmp_path, error):
    def steps():
        yield (torch.zeros(2),)
        assert (tmp_path / "capture" / "step_0000.safetensors").is_file()
        raise error("stop")

    with pytest.raises(error, match="stop") as broken:
        DiskStore(tmp_path / "capture", steps())
    assert broken.tb is not None  # still held, and the half-made store with it: it was not the collector that cleaned
    assert not (tmp_path / "capture").exists()


def test_a_folder_that_is_there_is_not_taken_over(tmp_path):
    mine = tmp_path / "capture"
    mine.mkdir()
    (mine / "precious").write_text("keep")
    with pytest.raises(ValueError, match=r"storage: no folder .*File exists.*--temp-directory"):
        DiskStore(mine, [])
    assert (mine / "precious").read_text() == "keep"


def test_files_cleaned_away_are_an_error_that_says_so(tmp_path):
    request = CaptureRequest((FEATURE,), (), 4, 0)
    store = DiskStore(tmp_path / "capture", flat(drawn(0, request), request))
    capture = Capture(TRAJECTORY, request, None, store)
    Path(store.folder / "step_0002.safetensors").unlink()
    assert len(store.tensors(1)) == 1
    with pytest.raises(ValueError, match=r"step 2 is no longer on disk.*Capture again"):
        store.tensors(2)
    capture.check_covers(InjectionPlan(4, 2, 0, (FEATURE,)))  # does not come that far
    with pytest.raises(ValueError, match="step 2 is no longer on disk"):
        capture.check_covers(InjectionPlan(4, 3, 0, (FEATURE,)))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"feature_steps": 3, "attention_steps": 2}, None),
        ({"feature_steps": 2, "attention_steps": 4}, None),
        ({"feature_steps": 4, "attention_steps": 2}, "feature"),
        ({"feature_steps": 2, "attention_steps": 2, "feature_sites": (OTHER,)}, "feature of layer 7"),
        ({"feature_steps": 2, "attention_steps": 2, "attention_sites": (DEEPER,)}, "self-attention of layer 5"),
    ],
)
def test_plans_are_checked_before_any_work(plan, message):
    request = CaptureRequest((FEATURE,), (ATTENTION,), 3, 4)
    capture = Capture(TRAJECTORY, request, None, None)
    settings = {"feature_sites": (FEATURE,), "attention_sites": (ATTENTION,), **plan}
    if message is None:
        capture.check_covers(InjectionPlan(4, **settings))
        return
    with pytest.raises(ValueError, match=message):
        capture.check_covers(InjectionPlan(4, **settings))


@pytest.mark.parametrize(
    ("attention_taken", "mode", "covered"),
    [(4, "adaptive", True), (2, "fixed", True), (2, "adaptive", False), (1, "fixed", False)],
)
def test_adaptive_attention_needs_every_step_and_fixed_only_its_window(attention_taken, mode, covered):
    capture = Capture(TRAJECTORY, CaptureRequest((), (ATTENTION,), 0, attention_taken), None, None)
    plan = InjectionPlan(4, 0, 2, (), (ATTENTION,), mode)
    if covered:
        capture.check_covers(plan)
        return
    with pytest.raises(ValueError, match="attention"):
        capture.check_covers(plan)
