"""A server of a ComfyUI that is too old for the pack, with the pack in it, and its page. Skipped on any other."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.browser.conftest import browser, frontend, page, server  # noqa: F401
from tools.devkit.host import existing
from tools.devkit.project import oldest_comfyui

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def version():
    """That ComfyUI's own version."""
    comfyui = existing(ROOT, os.environ)
    if comfyui is None:
        pytest.skip("there is no ComfyUI yet: run these tests with 'python3 tools/dev.py test --comfyui VERSION'")
    found = re.search(r"\"([\d.]+)\"", (comfyui / "comfyui_version.py").read_text(encoding="utf-8")).group(1)
    if tuple(int(number) for number in found.split(".")) >= oldest_comfyui(ROOT / "pyproject.toml"):
        pytest.skip(f"the pack runs on ComfyUI {found}; these tests are of one that is too old")
    return found
