"""Names, full disks, missing and damaged files: nothing is trained in vain, nothing made is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import safetensors.torch
import torch
from node_bench import files_below, refused

pytest_plugins = ("guards",)

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def trainings(pack, monkeypatch):
    """The starts of training proper, counted."""
    started = []
    train = pack.training_run.train
    monkeypatch.setattr(pack.training_run, "train", lambda *args: started.append(1) or train(*args))
    return started


def full(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


PREFIXES = [
    "../x", "/abs", "a/../../b", "a/..", "..", ".", "", "  ", "a//b", "a/", "C:\\x", "C:/x", "a\\b", "..\\x", ".hidden",
    "a/.hidden", "dots.", "star*", "what?", 'quo"te', "pipe|", "<x>", "new\nline", "nul\0",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES, ids=repr)
@pytest.mark.parametrize("save", [True, False])
def test_a_prefix_that_is_no_plain_name_is_refused(bench, trainings, host_folders, prefix, save):
    before = files_below(host_folders)
    with refused(bench, "filename_prefix: ", repr(prefix), "no plain name", "models/loras"):
        bench.train(filename_prefix=prefix, save=save)
    assert not trainings
    assert files_below(host_folders) == before


@pytest.mark.parametrize(
    "prefix", ["style", "DiffStyler/style", "a/b/c-1", " padded ", "Stil mit Pfiff", "caf\u00e9", "v1.5"]
)
def test_plain_names_stay_in_their_folder(pack, host_folders, prefix):
    store = pack.lora_store.LoraStore.of(prefix, "0" * 64)
    assert store.name == f"{prefix.strip()}_000000000000.safetensors"
    assert store.path.is_relative_to(host_folders / "loras")


def test_a_folder_that_cannot_be_written_is_refused_before_training(bench, trainings, host_folders):
    (host_folders / "loras" / "DiffStyler").write_text("a file, where the folder should be")
    with refused(bench, "filename_prefix: ", "cannot be written", "choose another prefix", "switch save off"):
        bench.train()
    assert not trainings


def test_a_name_too_long_for_the_disk_is_refused_before_training(bench, trainings):
    with refused(bench, "filename_prefix: ", "File name too long"):
        bench.train(filename_prefix="x" * 220)
    assert not trainings


def test_a_full_disk_is_refused_before_training(bench, trainings, host_folders, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100, 1_000_000))
    with refused(bench, "filename_prefix: ", "1 MB left", "Free some space"):
        bench.train()
    assert not trainings
    assert [n for n in files_below(host_folders / "loras") if "." in n] == []


@pytest.fixture
def full_while_saving(monkeypatch, host_folders):
    """models/loras takes no more bytes; every other folder does."""
    write, replace, folder = Path.write_bytes, os.replace, host_folders / "loras"

    def breaking(path, data):
        return full() if path.is_relative_to(folder) and data else write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", breaking)
        patch.setattr(os, "replace", lambda a, b: full() if Path(b).is_relative_to(folder) else replace(a, b))
        yield patch


def test_what_cannot_be_saved_is_rescued_and_found_by_the_next_request(
    bench, pack, trainings, host_folders, full_while_saving
):
    with refused(bench, "filename_prefix: ", "No space left", "is safe in", str(host_folders / "temp"), "queue again"):
        bench.train()
    (rescued,) = (host_folders / "temp" / "diffstyler").iterdir()
    assert [n for n in files_below(host_folders / "loras") if "." in n] == []
    full_while_saving.undo()
    state, _, name = bench.train()
    assert len(trainings) == 1
    assert files_below(host_folders / "loras") == ["DiffStyler", name]
    kept = pack.core.lora_file.load_lora(rescued)[0]
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[key], kept[key]) for key in state)
    assert bench.train()[2] == name
    assert len(trainings) == 1


def test_a_disk_that_stays_full_still_loses_nothing(bench, trainings, full_while_saving):
    for _ in range(2):
        with refused(bench, "No space left", "is safe in"):
            bench.train()
    assert len(trainings) == 1


@pytest.mark.parametrize("damage", ["cut", "html", "empty", "other request"])
def test_a_damaged_stored_lora_is_trained_again(bench, pack, trainings, host_folders, damage):
    first, _, name = bench.train()
    path = host_folders / "loras" / name
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-100], "html": b"<html>", "empty": b""}.get(damage, safetensors.torch.save(first)))
    again = bench.train()[0]
    assert len(trainings) == 2
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert pack.core.lora_file.load_lora(path)[1]["request"]


@pytest.fixture
def on_disk(bench, host_folders):
    """Features kept on disk, and their folder."""
    features = bench.capture(storage="disk")[0]
    (folder,) = (host_folders / "temp" / "diffstyler").iterdir()
    return features, folder


@pytest.mark.parametrize("gone", [["*"], ["step_0003*"]], ids=["all", "the last"])
def test_a_capture_whose_files_were_cleaned_is_refused(bench, on_disk, gone):
    features, folder = on_disk
    for pattern in gone:
        for file in folder.glob(pattern):
            file.unlink()
    with refused(bench, "features: ", "no longer on disk", "Capture again"):
        bench.sampler(features=features)


def test_a_capture_on_disk_goes_with_its_last_user(bench, host_folders):
    assert bench.capture(storage="disk")
    assert files_below(host_folders / "temp" / "diffstyler") == []


def test_a_disk_that_fills_while_capturing(bench, host_folders, monkeypatch):
    trajectory = bench.invert()[0]
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match=r"storage: step 0 .* No space left .* choose memory or recompute"):
        bench.capture(trajectory=trajectory, storage="disk")
    assert files_below(host_folders / "temp" / "diffstyler") == []
