"""The evaluation nodes with short defaults, small networks' files, and tables read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import regions_bench as rb
import torch

ALEX = "alexnet-owt-7be5be79.pth"


def compare(pack, result, content, **changes: Any):
    """((sheet, text, csv), the words on the node, the picture on it)."""
    settings = {"halves": False, "lpips_weights": "none", "source_prompt": "a photo", "target_prompt": ""}
    node = pack.compare.CompareImages
    return rb.run(node, result=result, content=content, **{**settings, **changes})


def rows(text: str) -> list[dict[str, str]]:
    """A CSV table."""
    return list(csv.DictReader(io.StringIO(text)))


def value(table: str, metric: str, region: str = "whole", against: str | None = None, result: int = 1) -> float:
    """One figure of a comparison's table."""
    (row,) = [
        r for r in rows(table)
        if (r["metric"], r["region"], r["result"]) == (metric, region, str(result)) and against in (None, r["against"])
    ]  # fmt: skip
    return float(row["value"])


def why(table: str, metric: str, region: str = "whole") -> str:
    """Why a figure is not there."""
    (row,) = {(r["value"], r["not_available"]) for r in rows(table) if (r["metric"], r["region"]) == (metric, region)}
    assert row[0] == ""
    return row[1]


def save_backbone(path: Path, kind: str = "alexnet") -> None:
    """A file as torchvision's, with random weights."""
    import torchvision

    torch.manual_seed(0)
    with torch.inference_mode(False):
        torch.save(getattr(torchvision.models, kind)(weights=None).state_dict(), path)
