"""`dev.py bench` with its smallest settings, in a process of its own: the files it writes. No time is asserted."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench import memory_table
from tools.bench.options import PARTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the smallest benchmark wrote its files."""
    made = tmp_path_factory.mktemp("bench")
    script = str(ROOT / "tools" / "bench" / "main.py")
    command = [sys.executable, script, "--quick", "--threads", "1", "--output", str(made)]
    subprocess.run(command, check=True, timeout=600, cwd=made)
    return made


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_every_part_has_its_rows_and_its_conditions(results):
    assert set(results) == {"machine", "versions", *PARTS}
    assert {"diffstyler", "comfyui", "torch", "diffusers", "peft", "python"} <= set(results["versions"])
    for part in PARTS:
        assert results[part]["rows"], part
        assert {"began_utc", "commit", "threads", "load_before", "seconds"} <= set(results[part])


def test_a_stage_takes_as_many_rows_as_its_peer_and_recompute_one_more(results):
    rows = {(row["name"], row["peer"]): row for row in results["stages"]["rows"] if "sizes" not in row}
    more = {name: row["ours"]["unet_rows"] - row["peer_counts"]["unet_rows"] for (name, _), row in rows.items()}
    assert more.pop("sample, injected, recompute") == 1
    assert set(more.values()) == {0}
    lora = rows["sample, injected, memory", "KSampler with Load LoRA"]
    assert lora["ours"]["gflop"] > 0
    assert lora["ours"]["operator_calls"] > 0
    styles = [rows[f"{n} styles in masks, injected", "KSampler with LoRA hooks and masks"] for n in (2, 4)]
    assert [row["ours"]["unet_rows"] for row in styles] == [4, 8]


def test_arithmetic_of_a_run_with_nothing_injected_is_the_hosts(results):
    row = next(row for row in results["stages"]["rows"] if row.get("name") == "sample, nothing injected")
    assert row["ours"]["gflop"] == pytest.approx(row["peer_counts"]["gflop"], rel=1e-3)


def test_the_plain_script_gives_the_packs_picture_with_the_same_lora(results):
    plain, every = results["job"]["rows"]
    assert plain["latents_apart"] < 1e-2
    assert every["latents_apart"] > plain["latents_apart"]  # another inversion


def test_arithmetic_grows_by_straight_lines(results):
    fits = {entry["name"]: entry["fits"]["gflop"] for entry in results["growth"]["rows"]}
    assert set(fits) == {"steps", "styles", "frames", "size"}
    assert all(fit["slope"] > 0 for fit in fits.values())
    assert abs(fits["steps"]["at_zero"]) < 0.5 * fits["steps"]["slope"]  # what a run does once is less than a step


def test_the_page_shows_every_part_and_the_plots_are_there(folder):
    page = (folder / "results.md").read_text()
    assert all(
        f"\n## {title}" in page for title in ("Each stage", "A training step", "The whole job", "How cost grows")
    )
    for plot in ("steps", "styles", "frames", "size"):
        assert f"](growth-{plot}.png)" in page
        assert (folder / f"growth-{plot}.png").stat().st_size > 0


def test_memory_of_a_stage_in_a_process_of_its_own():
    (row,) = itertools.islice(memory_table.rows(width=32, side=64, steps=2, threads=1), 1)
    assert row["stage"] == "KSampler"
    assert 0 < row["before_gb"] <= row["peak_gb"]
    assert 0 < row["inside_unet"] < 1
