"""Host tests run the real ComfyUI in this process: its folder comes first, and its arguments are set before import."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import types
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]

if "COMFYUI_PATH" not in os.environ:
    pytest.exit("COMFYUI_PATH is not set: run these tests with 'python3 tools/dev.py test host'.", returncode=4)

sys.path.insert(0, os.environ["COMFYUI_PATH"])
sys.path.insert(1, str(Path(__file__).parent))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.options  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402

import nodes as host_nodes  # noqa: E402

comfy.utils.set_progress_bar_enabled(False)


@pytest.fixture(scope="session")
def pack() -> types.SimpleNamespace:
    """The pack's own modules, as the host loaded them: ``pack.invert``, ``pack.core.trajectory``, ..."""
    loaded = asyncio.run(host_nodes.load_custom_node(str(PACK)))
    if not loaded:
        pytest.exit("the host could not load the pack; see the log above.", returncode=3)
    name = str(PACK).replace(".", "_x_")

    class Modules:
        def __init__(self, prefix: str) -> None:
            self._prefix = prefix

        def __getattr__(self, module: str) -> types.ModuleType:
            return importlib.import_module(f"{self._prefix}.{module}")

    modules = Modules(f"{name}.nodes")
    modules.core = Modules(f"{name}.diffstyler_core")
    return modules


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
