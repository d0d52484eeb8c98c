"""Fixtures (a pytest plugin) of the evaluation nodes' tests."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import pytest
import set_bench


@pytest.fixture
def metric_folders(tmp_path, monkeypatch, pack) -> Path:
    """models/lpips and models/fid of one's own."""
    for name in ("lpips", "fid"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], set()))
        folder_paths.filename_list_cache.pop(name, None)
    return tmp_path


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """ComfyUI's own directories with 2 contents, 3 styles and their 6 results, all small noise."""
    for name in ("input", "output"):
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    for i, content in enumerate(("cat", "old_dog")):
        set_bench.save(tmp_path / "input" / "contents" / f"{content}.png", i)
        for j, style in enumerate(("ink", "oil_2", "mosaic")):
            set_bench.save(tmp_path / "input" / "styles" / f"{style}.jpg", 10 + j, 56, 32)
            set_bench.save(tmp_path / "output" / "results" / f"{content}_stylized_{style}.png", 100 + 10 * i + j)
    return tmp_path


@pytest.fixture
def quick_inception(pack, metric_folders, monkeypatch):
    """models/fid/quick.pth, whose network is quick; its ``calls`` count."""
    (metric_folders / "fid" / "quick.pth").write_bytes(b"weights")
    monkeypatch.setattr(pack.evaluate.evaluate_set, "Inception", set_bench.QuickInception)
    monkeypatch.setattr(set_bench.QuickInception, "calls", 0)
    return set_bench.QuickInception
