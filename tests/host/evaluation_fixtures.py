"""Fixtures (a pytest plugin) of the evaluation nodes' tests."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import pytest


@pytest.fixture
def metric_folders(tmp_path, monkeypatch, pack) -> Path:
    """models/lpips and models/fid of one's own."""
    for name in ("lpips", "fid"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], set()))
        folder_paths.filename_list_cache.pop(name, None)
    return tmp_path
