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
    node = pack.evaluate.compare.CompareResult
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


def lpips_by_hand(path: Path, kind: str, a: torch.Tensor, b: torch.Tensor) -> float:
    """LPIPS as its paper has it, over torchvision's own network and the linear weights that torchmetrics carries."""
    import torchmetrics.functional.image.lpips as module
    import torchvision

    last = {"alexnet": (1, 4, 7, 9, 11), "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12)}[kind]
    net = getattr(torchvision.models, kind)(weights=None)
    net.load_state_dict(torch.load(path, weights_only=True))
    short = {"alexnet": "alex", "squeezenet1_1": "squeeze"}[kind]
    linear = torch.load(
        module.__file__.replace("lpips.py", f"lpips_models/{short}.pth"), weights_only=True, map_location="cpu"
    )
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((2 * p - 1 - shift) / scale).movedim(-1, 1) for p in (a, b))
    total = 0.0
    for index, layer in enumerate(net.features):
        x, y = layer(x), layer(y)
        if index in last:
            u, v = (f / f.norm(dim=1, keepdim=True).clamp(min=1e-8) for f in (x, y))
            weights = linear[f"lin{last.index(index)}.model.1.weight"]
            total += torch.nn.functional.conv2d((u - v).square(), weights).mean().item()
    return total
