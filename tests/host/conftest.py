"""Host tests run the real ComfyUI in this process: its folder comes first, and its arguments are set before import."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if "COMFYUI_PATH" not in os.environ:
    pytest.exit("COMFYUI_PATH is not set: run these tests with 'python3 tools/dev.py test host'.", returncode=4)

sys.path.insert(0, os.environ["COMFYUI_PATH"])
sys.path.insert(1, str(Path(__file__).parent))

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.options  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401 - as main.py does: an older nodes.py puts another utils first

import nodes as host_nodes  # noqa: E402
from tools.pack_loader import LoadedPack, load_pack  # noqa: E402

comfy.utils.set_progress_bar_enabled(False)
torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it brings, many times more on a busy machine


@pytest.fixture(scope="session")
def pack() -> LoadedPack:
    """The pack's own modules, as the host loaded them: ``pack.pipeline.invert``, ``pack.core.diffusion.ddim``, ..."""
    try:
        return load_pack(host_nodes)
    except RuntimeError as error:
        pytest.exit(str(error), returncode=3)


@pytest.fixture(autouse=True)
def host_folders(tmp_path, monkeypatch):
    """Every test has models/loras and temp folders of its own, and runs as nodes do: in inference mode."""
    loras = tmp_path / "loras"
    loras.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(loras)], {".safetensors", ".pt"}))
    folder_paths.filename_list_cache.pop("loras", None)
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    with torch.inference_mode():
        yield tmp_path


@pytest.fixture
def seed(record_property) -> int:
    """A fresh seed for every test; set DIFFSTYLER_TEST_SEED to repeat a failure."""
    value = int(os.environ.get("DIFFSTYLER_TEST_SEED") or int.from_bytes(os.urandom(3), "big"))
    record_property("seed", value)
    print(f"seed: DIFFSTYLER_TEST_SEED={value}")  # noqa: T201 - shown when the test fails
    return value


@pytest.fixture
def measured(record_property) -> Callable[..., None]:
    """``measured(what, value, at_most=...)`` records a figure for the summary, and checks it against its bound."""

    def record(what: str, value: float, at_most: float | None = None, at_least: float | None = None) -> None:
        bound = "" if at_most is None else f"  (at most {at_most:g})"
        bound += "" if at_least is None else f"  (at least {at_least:g})"
        record_property(what, f"{value:.3g}{bound}")
        assert at_most is None or value <= at_most, f"{what}: {value:.3g} exceeds {at_most:g}"
        assert at_least is None or value >= at_least, f"{what}: {value:.3g} is below {at_least:g}"

    return record


def pytest_terminal_summary(terminalreporter) -> None:
    """The measured figures of the run, of all its processes."""
    reports = [report for state in ("passed", "failed") for report in terminalreporter.stats.get(state, ())]
    figures = [
        f"{report.nodeid.rpartition('::')[2]:<58} {what}: {figure}"
        for report in reports
        if report.when == "call"
        for what, figure in report.user_properties
        if what != "seed"
    ]
    if figures:
        terminalreporter.section("measured")
        for line in sorted(figures):
            terminalreporter.write_line(line)
