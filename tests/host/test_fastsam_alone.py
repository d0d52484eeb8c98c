"""What importing and running ultralytics does to a process that has never seen it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import folder_paths
import pytest

pytest_plugins = ("fastsam_fixtures",)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def alone(made_weights, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (made_weights / "corrupt.pt").write_bytes(b"not weights")
    kept = ("PATH", "COMFYUI_PATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(HERE / "fastsam_alone.py"), str(HERE.parents[1]), str(made_weights)]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=240)
    (made_weights / "corrupt.pt").unlink()
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_works_there(alone):
    assert alone["overlap"] > 0.98
    assert "cannot be read as FastSAM weights" in alone["errors"][0]


def test_nothing_heavy_is_loaded_with_the_pack(alone):
    assert alone["loaded early"] == []


def test_no_connection_is_tried(alone):
    assert alone["attempts"] == []
    assert alone["telemetry"] is False
    assert alone["threads"] == 0


def test_the_process_is_left_as_it_was(alone):
    assert alone["changed"] == []


def test_files_are_written_in_the_hosts_folders_only(alone):
    outside = [name for name in alone["files"] if not name.startswith("host temp/")]
    assert outside == []
    assert [Path(name).name for name in alone["files"]] == ["settings.json"]


def test_the_folder_is_registered_beside_the_others(alone):
    assert alone["registered"][-1] == os.path.join(folder_paths.models_dir, "fastsam")
