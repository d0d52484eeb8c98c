"""LoRA files: kohya's names, metadata that comes back, and files that are whole or absent."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from diffstyler_core.lora.file import (
    DIGEST_KEY,
    METADATA_KEY,
    LowRank,
    digest_of,
    kohya_metadata,
    kohya_state,
    load_lora,
    read_own,
    save_lora,
)

SETTINGS = {
    "rank": 4, "alpha": 8.0, "learning_rate": 2e-4, "steps": 3, "seed": 7, "resolution": 512, "base_model": "SD15",
    "targets": ["to_q"], "stopped_at": None,
}  # fmt: skip
PATH = "output_blocks.4.1.transformer_blocks.0.attn1.to_q"
NAME = "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q"
KEY = "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_q"


def low_rank(seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(4, 32, generator=generator), torch.randn(16, 4, generator=generator))


def test_kohya_state_has_kohyas_names_and_the_same_numbers(seed):
    lora = low_rank(seed)
    state = kohya_state({PATH: LowRank(lora.down.half(), lora.up)}, {PATH: NAME}, 8.0)
    assert set(state) == {f"{KEY}.lora_down.weight", f"{KEY}.lora_up.weight", f"{KEY}.alpha"}
    assert torch.equal(state[f"{KEY}.lora_down.weight"], lora.down.half().float())
    assert torch.equal(state[f"{KEY}.lora_up.weight"], lora.up)
    assert state[f"{KEY}.alpha"].item() == 8.0
    assert state[f"{KEY}.lora_up.weight"].data_ptr() != lora.up.data_ptr(), "the state must not share memory"


def test_kohya_state_refuses_a_module_without_a_name():
    with pytest.raises(ValueError, match=f"'{PATH}' has no diffusers name"):
        kohya_state({PATH: low_rank(0)}, {}, 8.0)


def test_a_file_comes_back_as_it_was(seed, tmp_path):
    state = kohya_state({PATH: low_rank(seed)}, {PATH: NAME}, 8.0)
    path = tmp_path / "deep" / "er" / "style.safetensors"
    save_lora(path, state, kohya_metadata(SETTINGS, [0.5, 0.25, 1 / 3]))
    loaded, record = read_own(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert record == {**SETTINGS, "losses": [0.5, 0.25, 0.333333]}
    plain, kohya = load_lora(path)
    assert all(torch.equal(plain[key], state[key]) for key in state)
    with safetensors.safe_open(path, framework="pt") as file:
        assert kohya == file.metadata()
    assert kohya["ss_network_module"] == "networks.lora"
    assert (kohya["ss_network_dim"], kohya["ss_network_alpha"], kohya["ss_seed"]) == ("4", "8.0", "7")


def test_other_tools_files_have_no_metadata_of_ours(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    state, metadata = load_lora(path)
    assert torch.equal(state["a"], torch.ones(2))
    assert metadata == {}
    with pytest.raises(ValueError, match="carries no hash"):
        read_own(path)


def test_a_file_that_is_cut_while_its_tensors_are_in_use_does_no_harm(tmp_path):
    path = tmp_path / "style.safetensors"
    save_lora(path, {"a": torch.arange(100_000.0)}, {})
    state, _ = load_lora(path)
    with path.open("r+b") as file:
        file.truncate(8)
    assert torch.equal(state["a"], torch.arange(100_000.0))


STATES = [
    {"a": torch.zeros(6)}, {"b": torch.zeros(6)}, {"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)},
    {"a": torch.zeros(12, dtype=torch.float16)}, {"a": torch.zeros(12, dtype=torch.bfloat16)},
    {"a": -torch.zeros(6)}, {"a": torch.zeros(6), "b": torch.zeros(0)}, {"a": torch.zeros(3), "b": torch.zeros(3)}, {},
]  # fmt: skip


def test_the_hash_tells_names_shapes_formats_and_bits_apart():
    digests = [digest_of(state, record) for state in STATES for record in ("", "{}")]
    assert len(set(digests)) == len(digests)
    assert digest_of(STATES[-2], "") == digest_of(dict(reversed(STATES[-2].items())), "")


def forged(path: Path, state: dict, text: str) -> None:
    """A file with that record and a hash that fits."""
    metadata = {METADATA_KEY: text, DIGEST_KEY: digest_of(state, text)}
    path.write_bytes(safetensors.torch.save(state, metadata))


GOOD = json.dumps({"losses": [0.5, 1]})
ODD_RECORDS = {
    "none": "", "no json": "{", "a list": "[1]", "a number": "3", "a string": '"losses"', "null": "null",
    "no losses": "{}", "empty": '{"losses": []}', "text": '{"losses": "0.5"}', "nan": '{"losses": [NaN]}',
    "infinite": '{"losses": [0.5, Infinity]}', "words": '{"losses": ["0.5"]}', "yes": '{"losses": [true]}',
    "deep": "[" * 100_000, "a dict": '{"losses": {"0": 0.5}}',
}  # fmt: skip


@pytest.mark.parametrize("record", ODD_RECORDS.values(), ids=ODD_RECORDS)
def test_a_record_of_another_kind_is_a_value_error(tmp_path, record):
    forged(tmp_path / "good", {"a": torch.ones(2)}, GOOD)
    assert read_own(tmp_path / "good")[1] == {"losses": [0.5, 1]}
    forged(tmp_path / "odd", {"a": torch.ones(2)}, record)
    with pytest.raises(ValueError, match="its record"):
        read_own(tmp_path / "odd")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_a_value_error(tmp_path, value):
    forged(tmp_path / "bad", {"a": torch.tensor([1.0, value])}, GOOD)
    with pytest.raises(ValueError, match="not all finite"):
        read_own(tmp_path / "bad")


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "style"
    save_lora(path, {"a": torch.ones(4)}, {METADATA_KEY: GOOD})
    whole = path.read_bytes()
    for position in (-1, -16, whole.index(b"0.5")):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not what was written"):
            read_own(path)


def break_at(monkeypatch, where: str) -> None:
    """Makes writing fail: when the file is half written, or when it is to be renamed."""
    if where == "write":
        whole = Path.write_bytes

        def half(self: Path, data: bytes) -> int:
            whole(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", half)
    else:

        def refuse(*args: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("where", ["write", "rename"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_write_leaves_no_partial_file_and_keeps_the_old_one(tmp_path, monkeypatch, where, existing):
    path = tmp_path / "style.safetensors"
    if existing:
        save_lora(path, {"a": torch.zeros(1)}, {})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        break_at(patch, where)
        with pytest.raises(OSError, match=r"No space|denied"):
            save_lora(path, {"a": torch.ones(1000)}, {})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    save_lora(path, {"a": torch.ones(1)}, {})
    assert torch.equal(load_lora(path)[0]["a"], torch.ones(1))


def test_nobody_sees_a_half_written_file(tmp_path, monkeypatch):
    """At the moment of renaming, the new file is whole and the old one still in place."""
    path = tmp_path / "style.safetensors"
    save_lora(path, {"a": torch.zeros(1)}, {})
    rename, seen = os.replace, []

    def look(source: Path, target: Path) -> None:
        seen.extend((load_lora(source)[0]["a"].item(), load_lora(target)[0]["a"].item()))
        rename(source, target)

    monkeypatch.setattr(os, "replace", look)
    save_lora(path, {"a": torch.ones(1)}, {})
    assert seen == [1.0, 0.0]
