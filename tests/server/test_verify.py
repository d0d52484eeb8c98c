"""`dev.py verify` on a real server: the demo checkpoint passes, and what the pack cannot take is refused."""

from __future__ import annotations

import base64
import getpass
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from tools.devkit.host import existing
from tools.verify import ablation, checks, stages

ROOT = Path(__file__).absolute().parents[2]


def verify(*arguments):
    """`dev.py verify` after its set-up."""
    env = {**os.environ, "COMFYUI_PATH": str(existing(ROOT, os.environ))}
    command = [sys.executable, str(ROOT / "tools" / "verify" / "main.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(the finished process, its report) of the shortest run, with the demo checkpoint lying elsewhere."""
    folder = tmp_path_factory.mktemp("verify")
    checkpoint = folder / "models elsewhere" / "diffstyler-demo.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.symlink_to(ROOT / "demo" / checkpoint.name)
    options = ("--quick", "--steps", "4", "--train-steps", "6", "--output", str(folder / "out"))
    done = verify("--checkpoint", str(checkpoint), *options)
    assert (folder / "out" / "report.html").is_file(), done.stdout + done.stderr
    return done, (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_every_check_passes_and_every_stage_is_measured(run):
    done, page = run
    assert done.returncode == 0, done.stdout + done.stderr
    all_checks = [*checks.BEFORE, *checks.AFTER]
    assert f"{len(all_checks)} of {len(all_checks)} self-checks passed." in page
    assert page.count('<td class="passed">') == len(all_checks)
    for stage in stages.STAGES:
        assert re.search(rf"<td>{stage.name}</td><td>\d+\.\d+ s</td>", page), stage.name
    for words in (
        "v-prediction",
        "float32",
        "128 pixels",
        "self-attention 9-11",
        "ComfyUI 0",
        f"torch {torch.__version__}",
    ):
        assert words in page


def test_the_report_shows_both_pairs_in_every_variant(run):
    page = run[1]
    with Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page).group(1)))) as sheet:
        columns = len(ablation.VARIANTS) + 2
        assert sheet.width > 200 * columns
        squares = [sheet.crop((4 + 228 * i, 36, 228 + 228 * i, 260)).resize((56, 56)) for i in range(columns)]
    shown = {square.convert("RGB").tobytes() for square in squares}
    assert len(shown) == columns, "each differs"
    assert page.count("<td>oil painting</td>") == page.count("<td>mosaic</td>") == len(ablation.VARIANTS)


def test_the_report_names_no_folder_and_no_user(run):
    page = re.sub(r"base64,[^\"]+", "", run[1])
    for secret in (str(ROOT), os.environ.get("COMFYUI_PATH", str(ROOT)), "models elsewhere", str(Path.home()) + "/"):
        assert secret not in page
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in page


def test_a_file_that_is_no_checkpoint_of_a_known_model_is_refused(tmp_path):
    unknown = tmp_path / "unknown.safetensors"
    safetensors.torch.save_file({"model.diffusion_model.layer.weight": torch.zeros(4, 4)}, unknown)
    done = verify("--checkpoint", str(unknown), "--quick", "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "Stage 'open the checkpoint' failed: unknown.safetensors: " in done.stderr
    assert "What to do: give --checkpoint a Stable Diffusion 1, 2 or XL file." in done.stderr
    assert not (tmp_path / "out").exists()
