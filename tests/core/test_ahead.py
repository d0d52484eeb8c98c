"""Reading ahead: in a thread, as far as the bound goes, with its errors, and with no thread left."""

from __future__ import annotations

import threading

import pytest
import torch

from diffstyler_core.injection.ahead import BOUND, ReadAhead, Reading
from diffstyler_core.injection.blocks import BLOCK, Blocks, bytes_in_blocks
from diffstyler_core.injection.disk import DiskStore
from diffstyler_core.injection.store import FrameStores, MemoryStore, SomeFrames, frames_of

LONG = 10.0
"""Seconds that a test waits for what should come at once."""


@pytest.fixture
def ahead():
    made = ReadAhead(bound=100)
    yield made
    made.close()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "read-ahead" in thread.name]


def named(read_in: list[str], value: int, nbytes: int = 10) -> Reading[int]:
    """A reading that says in which thread it ran."""
    return Reading(nbytes, lambda: read_in.append(threading.current_thread().name) or value)


def test_what_is_expected_is_read_while_something_else_is_done(ahead):
    read = threading.Event()
    ahead.expect({"next": Reading(10, lambda: read.set() or 7)})
    assert read.wait(LONG), "nobody has asked for it yet"
    assert ahead.take("next", Reading(10, lambda: pytest.fail("read twice"))) == 7
    assert ahead.nbytes == 0


def test_what_is_not_expected_is_read_by_who_asks(ahead):
    read_in = []
    ahead.expect({"next": named(read_in, 1)})
    assert ahead.take("other", named(read_in, 2)) == 2
    assert ahead.take("next", named(read_in, 3)) == 1
    assert sorted(read_in) == sorted([threading.current_thread().name, "diffstyler read-ahead_0"])


def test_no_more_than_the_bound_is_ahead(ahead):
    read_in, most = [], []
    sizes = [60, 50, 40, 100, 101, 1]
    for first, second in zip(sizes, sizes[1:], strict=False):
        coming = {size: named(read_in, size, size) for size in (first, second)}
        ahead.expect(coming)
        most.append(ahead.nbytes)
        for size, reading in coming.items():
            assert ahead.take(size, reading) == size
    assert most == [60, 90, 40, 100, 1], "the second where it fits beside the first"


def test_what_is_no_longer_expected_takes_no_memory(ahead):
    started, go_on = threading.Event(), threading.Event()
    ahead.expect({"running": Reading(60, lambda: started.set() or go_on.wait(LONG)), "waiting": Reading(40, int)})
    assert started.wait(LONG)
    timer = threading.Timer(0.2, go_on.set)
    timer.start()
    ahead.expect({"next": Reading(100, lambda: go_on.is_set())})
    assert go_on.is_set(), "what was being read took its memory until it was read"
    assert ahead.nbytes == 100
    assert ahead.take("next", Reading(100, bool)) is True
    timer.join()


def test_an_error_comes_to_who_asks(ahead):
    def damaged():
        raise ValueError("features: step 1 is damaged")

    ahead.expect({1: Reading(10, damaged), 2: Reading(10, lambda: "whole")})
    assert ahead.take(2, Reading(10, str)) == "whole"
    with pytest.raises(ValueError, match="step 1 is damaged"):
        ahead.take(1, Reading(10, lambda: pytest.fail("read twice")))


def test_no_thread_without_need_and_none_is_left(ahead):
    ahead.expect({"large": Reading(101, int)})
    ahead.take("large", Reading(101, int))
    assert threads() == []
    ended = []
    ahead.expect(
        {"slow": Reading(10, lambda: threading.Event().wait(0.2) or ended.append(1)), "late": Reading(10, int)}
    )
    assert len(threads()) == 1
    ahead.close()
    assert threads() == []
    assert (ended, ahead.nbytes) == ([1], 0)
    ahead.close()


def test_a_damaged_and_a_missing_file_say_what_they_say_without(tmp_path, ahead):
    store = DiskStore(tmp_path / "capture", [(torch.ones(4),), (torch.zeros(4),)])
    files = sorted(store.folder.iterdir())
    files[0].write_bytes(bytes(files[0].stat().st_size))
    files[1].unlink()
    for step, sentence in ((0, r"step 0 of the capture is damaged"), (1, r"step 1 is no longer on disk")):
        ahead.expect({step: Reading(16, lambda step=step: store.tensors(step))})
        with pytest.raises(ValueError, match=sentence):
            ahead.take(step, Reading(16, tuple))


def drawn(frames: int = 2, seed: int = 5) -> list[tuple[torch.Tensor, ...]]:
    """Per step, tensors of three number formats, one of them empty."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (frames, 3, 4), (frames, 5), (frames, 0), (frames, 2, 2)
    formats = torch.float16, torch.float32, torch.float16, torch.bfloat16
    return [
        tuple(torch.randn(shape, generator=generator).to(dtype) for shape, dtype in zip(shapes, formats, strict=True))
        for _ in range(3)
    ]


def same(found, expected) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("which", [None, [], [0], [1, 3], [0, 1, 2, 3]])
def test_some_of_a_steps_tensors(tmp_path, which):
    """From every store the same bits, and no memory for the others."""
    steps = drawn()
    disk, memory = DiskStore(tmp_path / "capture", steps), MemoryStore(steps)
    wanted = range(4) if which is None else which
    for step, tensors in enumerate(steps):
        expected = tuple(tensors[i] for i in wanted)
        nbytes = sum(tensor.nbytes for tensor in expected)
        for store in (disk, memory):
            found = store.tensors(step, which)
            assert same(found, expected)
            assert (
                sum(tensor.untyped_storage().nbytes() for tensor in found) == nbytes == sum(store.sizes_at(step, which))
            )
        both = FrameStores([disk, memory])
        assert same(both.tensors(step, which), tuple(torch.cat([t, t]) for t in expected))
        assert sum(both.sizes_at(step, which)) == 4 * nbytes, "each store's, and the joined ones"
        second = SomeFrames(disk, 1, 2)
        assert same(second.tensors(step, which), tuple(t[1:] for t in expected))
        assert sum(second.sizes_at(step, which)) == nbytes
    assert (disk.dtype, memory.dtype, both.dtype, second.dtype) == (torch.float16,) * 4
    assert (disk.in_memory, memory.in_memory, second.in_memory) == (False, True, False)


@pytest.mark.parametrize("which", [None, [1, 3]])
def test_tensors_in_a_room_that_is_given(tmp_path, which):
    """Copies in shared blocks, from every store, and of no more frames than are asked for."""
    steps = drawn()
    disk, memory = DiskStore(tmp_path / "capture", steps), MemoryStore(steps)
    allocated: list[torch.Tensor] = []

    def allocate(nbytes: int) -> torch.Tensor:
        allocated.append(torch.empty(nbytes, dtype=torch.uint8))
        return allocated[-1]

    for store in (disk, memory, SomeFrames(memory, 1, 2), SomeFrames(disk, 1, 2), FrameStores([disk, memory])):
        allocated.clear()
        found = store.tensors(1, which, Blocks(allocate))
        assert same(found, store.tensors(1, which))
        (block,) = allocated
        assert {t.untyped_storage().data_ptr() for t in found if t.numel()} == {block.untyped_storage().data_ptr()}
        assert len({t.data_ptr() for t in found if t.numel()}) == sum(t.numel() > 0 for t in found)


def test_blocks_waste_little():
    """SDXL's chosen layers at 1024 in fp16: 41 tensors of 2.6 MB and 12 of 5.2 MB."""
    sizes, allocated = [2 * 1024 * 1280] * 41 + [2 * 4096 * 640] * 12, []
    blocks = Blocks(lambda nbytes: allocated.append(nbytes) or torch.empty(nbytes, dtype=torch.uint8, device="meta"))
    for nbytes in sizes:
        assert blocks(nbytes).nbytes == nbytes
    assert sum(allocated) == bytes_in_blocks(sizes) == 11 * BLOCK < BOUND
    assert sum(1 << (nbytes - 1).bit_length() for nbytes in sizes) > BOUND, "each by itself"
    assert bytes_in_blocks([BLOCK + 1, 1, BLOCK, 3]) == 2 * BLOCK + 3 * BLOCK


def test_damage_is_found_in_what_nobody_asks_for(tmp_path):
    store = DiskStore(tmp_path / "capture", drawn())
    (file, *_) = sorted(store.folder.iterdir())
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for which in ([], [1], None):
        with pytest.raises(ValueError, match=r"step 0 of the capture is damaged .*its contents have changed"):
            store.tensors(0, which)


@pytest.mark.parametrize(
    ("start", "stop", "groups"), [(0, 2, [0]), (2, 4, [1]), (1, 3, [0, 1]), (5, 6, [2]), (0, 6, [0, 1, 2])]
)
def test_some_frames_of_groups_are_read_from_their_own_groups(tmp_path, monkeypatch, start, stop, groups):
    stores = [DiskStore(tmp_path / str(i), drawn(seed=i)) for i in range(3)]
    whole = FrameStores(stores).tensors(1)
    assert FrameStores(stores).frames == 6
    read, tensors = [], DiskStore.tensors
    monkeypatch.setattr(
        DiskStore, "tensors", lambda self, *args: read.append(stores.index(self)) or tensors(self, *args)
    )
    some = frames_of(FrameStores(stores), start, stop)
    assert same(some.tensors(1), tuple(t[start:stop] for t in whole))
    assert (read, some.frames) == (groups, stop - start)
