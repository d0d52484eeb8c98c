"""Stores of captured steps: what comes back is what was written, or an error that says so; files go with the store."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.trajectory import Trajectory
from diffstyler_core.injection.capture import Capture, CaptureRequest
from diffstyler_core.injection.disk import DiskStore
from diffstyler_core.injection.plan import InjectionPlan
from diffstyler_core.injection.sites import Site
from diffstyler_core.injection.store import MemoryStore

ROOT = Path(__file__).resolve().parents[2]


def drawn(seed: int, steps: int = 3) -> list[tuple[torch.Tensor, ...]]:
    """Per step, a feature and a q, k pair."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (1, 3, 8, 8), (1, 4, 6), (1, 4, 6)
    return [tuple(torch.randn(shape, generator=generator).half() for shape in shapes) for _ in range(steps)]


def step_file(store: DiskStore, step: int) -> Path:
    return store.folder / f"step_{step:04d}.safetensors"


def same(found, expected) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :]


SAME_SIZE = {
    "one bit of a tensor": lambda data, own, other: flipped(data, len(data) - 5),
    "one bit of the header": lambda data, own, other: flipped(data, 20),
    "zeros": lambda data, own, other: bytes(len(data)),
    "another step": lambda data, own, other: step_file(own, 2).read_bytes(),
    "the same step of another capture": lambda data, own, other: step_file(other, 1).read_bytes(),
    "another dtype of the same size": lambda data, own, other: data.replace(b'"F16"', b'"I16"'),
}
OTHER_SIZE = {
    "empty": lambda data, own, other: b"",
    "cut by a byte": lambda data, own, other: data[:-1],
    "cut in its header": lambda data, own, other: data[:40],
    "a byte too long": lambda data, own, other: data + b"\0",
    "a web page": lambda data, own, other: b"<html></html>",
    "more tensors": lambda data, own, other: safetensors.torch.save({str(i): torch.zeros(1) for i in range(9)}),
}


@pytest.mark.parametrize("damage", SAME_SIZE | OTHER_SIZE)
def test_a_step_that_is_not_what_was_written_is_refused(tmp_path, damage):
    steps = drawn(1)
    store, other = DiskStore(tmp_path / "a", steps), DiskStore(tmp_path / "b", drawn(2))
    data = step_file(store, 1).read_bytes()
    changed = (SAME_SIZE | OTHER_SIZE)[damage](data, store, other)
    assert changed != data
    assert (len(changed) == len(data)) == (damage in SAME_SIZE)
    step_file(store, 1).write_bytes(changed)
    refusal = r"features: step 1 of the capture is damaged or not the one that was written .*Capture again: change"
    with pytest.raises(ValueError, match=refusal):
        store.tensors(1)
    assert same(store.tensors(0), steps[0])
    assert same(store.tensors(2), steps[2])
    if damage in OTHER_SIZE:
        with pytest.raises(ValueError, match=refusal):
            store.require(1)
    step_file(store, 1).write_bytes(data)
    store.require(1)
    assert same(store.tensors(1), steps[1])


def test_a_cut_step_is_found_before_the_run(tmp_path):
    schedule = NoiseSchedule.leading([1.0 - (i + 1) / 1001 for i in range(1000)], "eps", 3)
    trajectory = Trajectory((torch.zeros(1, 4, 8, 8),) * 4, schedule)
    site = Site("feature", 4)
    store = DiskStore(tmp_path / "capture", [step[:1] for step in drawn(1)])
    capture = Capture(trajectory, CaptureRequest((site,), (), 3, 0), None, store)
    step_file(store, 2).write_bytes(b"cut")
    capture.check_covers(InjectionPlan(3, 2, 0, (site,)))  # does not come that far
    with pytest.raises(ValueError, match=r"step 2 of the capture is damaged .*3 bytes instead of"):
        capture.check_covers(InjectionPlan(3, 3, 0, (site,)))


def test_a_step_that_cannot_be_read_is_an_error_with_a_name(tmp_path, monkeypatch):
    store = DiskStore(tmp_path / "capture", drawn(1))

    def broken(path, *_mode, **_more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(ValueError, match=r"features: the captured step 1 cannot be read .*denied.*Capture again"):
        store.tensors(1)


def test_files_cut_while_their_tensors_are_in_use_do_not_end_the_process(tmp_path):
    """In a process of its own: tensors of a file that is mapped into memory would end it with SIGBUS."""
    code = """
        import pathlib, sys, torch
        from diffstyler_core.injection.disk import DiskStore
        store = DiskStore(pathlib.Path(sys.argv[1]), [(torch.ones(1 << 20),)])
        (tensor,) = store.tensors(0)
        (file,) = store.folder.iterdir()
        file.write_bytes(b"")
        print(int(tensor.sum()))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "capture")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(1 << 20)), done.stderr
    assert not (tmp_path / "capture").exists(), "the files go with the process as well"


@contextmanager
def files_no_larger_than(size: int):
    """The kernel itself refuses to write more, half-way through a file."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_step_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    small, large = (torch.zeros(10),), (torch.zeros(100_000),)
    with files_no_larger_than(50_000), pytest.raises(ValueError, match=r"storage: step 1 .*too large.*memory or reco"):
        DiskStore(tmp_path / "capture", [small, large, small])
    assert not (tmp_path / "capture").exists()


def test_cancel_in_the_middle_of_a_write_leaves_nothing(tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def cancelled(path, data):
        write(path, data[: len(data) // 2])
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", cancelled)
    with pytest.raises(KeyboardInterrupt):
        DiskStore(tmp_path / "capture", drawn(1))
    assert len(written) == 2
    assert not (tmp_path / "capture").exists()


@pytest.mark.parametrize("there", ["capture", "parent"])
def test_a_folder_that_cannot_be_made_is_an_error_with_a_name(tmp_path, there):
    (tmp_path / there).write_text("mine")
    folder = tmp_path / "capture" if there == "capture" else tmp_path / "parent" / "capture"
    with pytest.raises(ValueError, match=r"storage: no folder for the capture .*Choose memory or recompute"):
        DiskStore(folder, drawn(1))
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_files_stay_for_as_long_as_a_copy_reads_them(tmp_path, copied):
    steps = drawn(1)
    store = DiskStore(tmp_path / "capture", steps)
    second = copied(store)
    del store
    gc.collect()
    assert same(second.tensors(2), steps[2])
    del second
    gc.collect()
    assert not (tmp_path / "capture").exists()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_in_memory_is_a_store(copied):
    steps = drawn(1)
    store = copied(MemoryStore(steps))
    assert isinstance(store, MemoryStore)
    assert all(same(store.tensors(i), step) for i, step in enumerate(steps))


def test_two_stores_side_by_side_are_read_by_many(tmp_path):
    """Two captures in one temp folder, each read by two samplers at once."""
    steps = drawn(1), drawn(2)
    stores = [DiskStore(tmp_path / name, own) for name, own in zip("ab", steps, strict=True)]
    jobs = [(which, step) for which in (0, 1) for step in range(3)] * 20
    with ThreadPoolExecutor(4) as readers:
        found = list(readers.map(lambda job: stores[job[0]].tensors(job[1]), jobs))
    assert all(same(tensors, steps[which][step]) for tensors, (which, step) in zip(found, jobs, strict=True))
    stores.pop(0)
    gc.collect()
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert same(stores[0].tensors(1), steps[1][1])
