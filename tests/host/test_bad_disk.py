"""Names, full disks, missing and damaged files: nothing is trained in vain, nothing made is lost."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections import namedtuple
from pathlib import Path

import folder_paths
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
    train = pack.host.training.run.train
    monkeypatch.setattr(pack.host.training.run, "train", lambda *args: started.append(1) or train(*args))
    return started


def full(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


PREFIXES = [
    "../x", "/abs", "a/../../b", "a/..", "..", ".", "", "  ", "a//b", "a/", "C:\\x", "C:/x", "a\\b", "..\\x", ".hidden",
    "a/.hidden", "dots.", "star*", "what?", 'quo"te', "pipe|", "<x>", "new\nline", "nul\0", "half \ud800", "\udfff/a",
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
    store = pack.host.training.store.LoraStore.of(prefix, "0" * 64)
    assert store.name == f"{prefix.strip()}_000000000000.safetensors"
    assert store.path.is_relative_to(host_folders / "loras")


def test_a_folder_that_cannot_be_written_is_refused_before_training(bench, trainings, host_folders):
    (host_folders / "loras" / "DiffStyler").write_text("a file, where the folder should be")
    words = ("cannot be written", "a file is where a folder should be", "choose another prefix", "switch save off")
    with refused(bench, "filename_prefix: ", *words):
        bench.train()
    assert not trainings


def test_a_folder_in_the_files_place_is_refused_before_training(bench, trainings, host_folders):
    name = bench.train()[2]
    path = host_folders / "loras" / name
    path.unlink()
    (path / "full").mkdir(parents=True)
    with refused(bench, "filename_prefix: ", name, "is a folder", "Rename that folder", "switch save off"):
        bench.train()
    assert len(trainings) == 1
    assert files_below(path) == ["full"]
    assert bench.train(save=False)[2] == ""


LONG = ["x" * 300, "x" * 201, "a/" + "x" * 300 + "/b", "\u00e4" * 120, "x" * 100_000]


@pytest.mark.parametrize("prefix", LONG, ids=["300", "201", "a folder", "bytes", "100000"])
@pytest.mark.parametrize("save", [True, False])
def test_a_name_too_long_for_file_systems_is_refused_before_training(bench, trainings, prefix, save):
    with refused(bench, "filename_prefix: ", "200 bytes", "Use a shorter one") as caught:
        bench.train(filename_prefix=prefix, save=save)
    assert not trainings
    assert len(str(caught.value)) < 400


def test_the_longest_name_can_be_kept_however_its_training_ends(bench, pack, host_folders):
    store = pack.host.training.store.LoraStore.of("x" * 200, "0" * 64)
    store.check_writable(0)
    assert store.save({"a": torch.ones(1)}, {}, suffix="_stopped_at_100000").name
    assert len(files_below(host_folders / "loras")) == 1


@pytest.mark.parametrize(
    ("prefix", "words"), [("x" * 190, ["File name too long"]), ("abcdefgh/" * 600 + "x", ["File name too long"])],
    ids=["part", "whole"],
)  # fmt: skip
def test_what_this_file_system_does_not_take_is_refused_before_training(bench, trainings, monkeypatch, prefix, words):
    """A file system with names of 143 bytes (eCryptfs); a path of more than 4096."""
    write = Path.write_bytes

    def short_names(path, data):
        if len(path.name) > 143:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", short_names)
    with refused(bench, "filename_prefix: ", *words):
        bench.train(filename_prefix=prefix)
    assert not trainings


LEFT = [".style_0123456789ab.89abcdef.partial", ".style_0123456789ab_stopped_at_7.89abcdef.partial",
        f".style_0123456789ab_stopped_at_{'a' * 17}.probe"]  # fmt: skip
OTHERS = [".style.89abcdef.partial", "style_0123456789ab.89abcdef.partial", ".style_0123456789ab.89abcdef.part",
          "style_0123456789ab.safetensors", ".style_0123456789ab.xyz.partial", ".probe"]  # fmt: skip


def test_what_crashed_runs_left_is_swept(bench, host_folders):
    folder = host_folders / "loras" / "DiffStyler"
    folder.mkdir()
    for name in (*LEFT, *OTHERS):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (1e9, 1e9))
    (folder / LEFT[0].replace("89", "88")).write_bytes(b"a parallel run's")
    (folder / LEFT[0].replace("89", "87")).mkdir()
    os.utime(folder / LEFT[0].replace("89", "87"), (1e9, 1e9))
    name = bench.train()[2]
    kept = {*OTHERS, Path(name).name, LEFT[0].replace("89", "88"), LEFT[0].replace("89", "87")}
    assert {path.name for path in folder.iterdir()} == kept


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


def words_of(output):
    """What a node shows."""
    return "\n".join(output.ui["text"])


def test_what_cannot_be_saved_comes_out_and_is_saved_by_the_next_request(
    bench, pack, trainings, host_folders, full_while_saving
):
    node = pack.pipeline.train.TrainStyleLoRA
    before = node.fingerprint_inputs(rank=2, save=True, filename_prefix="DiffStyler/style")
    output = bench.train_output()
    state, losses, name = output.result
    assert name == ""
    assert len(losses["loss"]) == 2
    (rescued,) = (host_folders / "temp" / "diffstyler" / "loras").iterdir()
    for word in ("NOT SAVED", "No space left", str(rescued), "make room", "queue again"):
        assert word in words_of(output)
    assert [n for n in files_below(host_folders / "loras") if "." in n] == []
    now = node.fingerprint_inputs(rank=2, save=True, filename_prefix="DiffStyler/style")
    assert now != before, "the host's cache would not run the node again"
    others = {"rank": 2, "save": True, "filename_prefix": "DiffStyler/other"}
    assert node.fingerprint_inputs(**others) == before, "another node's LoRA is none of its business"
    assert node.fingerprint_inputs(**{**others, "filename_prefix": "DiffStyler/style", "save": False}) == before
    kept = pack.core.lora.file.read_own(rescued)[0]
    assert all(torch.equal(state[key], kept[key]) for key in state)

    again = bench.train_output()  # still full
    assert again.result[2] == ""
    assert "NOT SAVED" in words_of(again)

    full_while_saving.undo()
    saved = bench.train_output(filename_prefix="elsewhere/x")
    name = saved.result[2]
    assert len(trainings) == 1
    assert [n for n in files_below(host_folders / "loras") if "." in n] == [name]
    assert f"saved as {name}" in words_of(saved)
    assert all(torch.equal(state[key], saved.result[0][key]) for key in state)
    assert saved.result[1]["loss"] == pytest.approx(losses["loss"], abs=1e-6)
    assert node.fingerprint_inputs(rank=2, save=True, filename_prefix="DiffStyler/style") == before
    assert bench.train(filename_prefix="elsewhere/x")[2] == name
    assert len(trainings) == 1


def test_with_both_folders_full_the_lora_still_comes_out(bench, trainings, host_folders, full_while_saving):
    full_while_saving.setattr(Path, "write_bytes", lambda path, data: full() if data else path.touch())
    output = bench.train_output()
    state, losses, name = output.result
    assert all(torch.isfinite(weight).all() for weight in state.values())
    assert len(losses["loss"]) == 2
    assert name == ""
    for word in ("NOT SAVED", "No space left", str(host_folders / "temp"), "make room", "Save LoRA Weights"):
        assert word in words_of(output)
    assert [n for n in files_below(host_folders) if n.endswith((".safetensors", ".partial"))] == []
    assert len(trainings) == 1


def test_good_weights_of_a_broken_run_are_rescued_too(bench, pack, host_folders, full_while_saving, monkeypatch):
    train = pack.host.training.run.train

    def stops(*args):
        result = train(*args)
        return pack.core.training.train.TrainResult(result.lora, result.losses, stopped_at=2)

    monkeypatch.setattr(pack.host.training.run, "train", stops)
    with refused(bench, "learning_rate: ", "step 2 of 2", "NOT SAVED", str(host_folders / "temp"), "_stopped_at_2"):
        bench.train()


def with_record(whole: bytes, **changes) -> bytes:
    """The file with its record changed and everything else as it was."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    record = json.loads(header["__metadata__"]["diffstyler"])
    header["__metadata__"]["diffstyler"] = json.dumps({k: v for k, v in {**record, **changes}.items() if v != "gone"})
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


def flipped(whole: bytes, bit: int) -> bytes:
    """One bit is another one, counted from the end."""
    damaged = bytearray(whole)
    damaged[len(damaged) - 1 - bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


DAMAGES = {
    "cut": lambda whole: whole[:-100],
    "html": lambda whole: b"<html>",
    "empty": lambda whole: b"",
    "another tool's": lambda whole: safetensors.torch.save(safetensors.torch.load(whole)),
    "an exponent's bit": lambda whole: flipped(whole, 6),
    "no losses": lambda whole: with_record(whole, losses="gone"),
    "other losses": lambda whole: with_record(whole, losses=["x"]),
    "other request": lambda whole: with_record(whole, request="0" * 64),
    "no request": lambda whole: with_record(whole, request="gone"),
    "stopped": lambda whole: with_record(whole, stopped_at=1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stored_lora_is_trained_again_and_the_node_says_why(bench, pack, trainings, host_folders, damage):
    first, _, name = bench.train()
    path = host_folders / "loras" / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    output = bench.train_output()
    assert len(trainings) == 2
    assert all(torch.equal(first[key], output.result[0][key]) for key in first)
    assert f"{path.name} was there and" in words_of(output)
    assert f"saved as {name}" in words_of(output)
    assert pack.core.lora.file.read_own(path)[1]["request"]
    assert "was there" not in words_of(bench.train_output())
    assert len(trainings) == 2


def test_a_file_that_cannot_be_read_is_trained_again(bench, trainings, host_folders, monkeypatch):
    name = bench.train()[2]

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert "Permission denied" in words_of(bench.train_output())
    assert len(trainings) == 2
    assert bench.train()[2] == name
    assert len(trainings) == 2


def mutated(whole: bytes, choice: random.Random) -> bytes:
    """A file with one to four random damages: bits, bytes put in, taken out or repeated, digits, cuts, records."""
    for _ in range(choice.randint(1, 4)):
        at = choice.randrange(len(whole)) if choice.random() < 0.5 else choice.randrange(min(3000, len(whole)))
        match choice.randrange(7):
            case 0 | 1:
                whole = flipped(whole, 8 * (len(whole) - 1 - at) + choice.randrange(8))
            case 2:
                whole = whole[:at] + choice.randbytes(choice.randint(1, 9)) + whole[at:]
            case 3:
                whole = whole[:at] + whole[at + choice.randint(1, 9) :]
            case 4:
                whole = whole[: at + 1]
            case 5:
                old, new = choice.sample(
                    [b"F32", b"F16", b"BF16", b"F8_E5M2", b"[", b"{", b'"', b"0", b"9", b"null"], 2
                )
                whole = whole.replace(old, new, choice.randint(1, 3))
            case 6:
                whole = whole[:at] + whole[max(0, at - choice.randint(1, 99)) :]
    return whole


def test_any_damaged_file_is_loaded_unchanged_or_trained_again(bench, pack, host_folders, seed):
    state, _, name = bench.train()
    path = host_folders / "loras" / name
    whole = path.read_bytes()
    store = pack.host.training.store.LoraStore.of("DiffStyler/style", pack.core.lora.file.read_own(path)[1]["request"])
    assert store.path == path
    assert store.find()[1] == ""
    choice, taken = random.Random(seed), 0
    for _ in range(60):
        path.write_bytes(mutated(whole, choice))
        found, why = store.find()
        assert (found is None) == bool(why)
        if found is not None:
            taken += 1
            assert found.state.keys() == state.keys()
            assert all(torch.equal(found.state[key], state[key]) for key in state)
    assert taken < 20


def test_a_file_holds_no_path_of_the_machine(bench, host_folders):
    name = bench.train()[2]
    whole = (host_folders / "loras" / name).read_bytes()
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")].decode()
    for path in (host_folders, Path.cwd(), Path.home(), Path(folder_paths.base_path)):
        assert str(path) not in header
    assert "DiffStyler/style" not in header


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
