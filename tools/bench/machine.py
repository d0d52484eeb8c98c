"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


def machine() -> dict[str, Any]:
    """Processor or GPU, cores and memory."""
    import psutil

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": f"{platform.machine()} {platform.system()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu,
    }


def versions() -> dict[str, str]:
    """Of Python, the pack, ComfyUI and the packages that take part."""
    import comfyui_version

    pack = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    found = {
        "python": platform.python_version(),
        "diffstyler": pack.group(1) if pack else "unknown",
        "comfyui": comfyui_version.__version__,
    }
    return {**found, **{name: importlib.metadata.version(name) for name in ("torch", "diffusers", "peft")}}


def conditions() -> dict[str, Any]:
    """When a part was measured, with how many threads, and how busy the machine was (processes that wanted a core)."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return {"began_utc": when, "commit": _commit(), "threads": torch.get_num_threads(), "load_before": load}


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no clone: the version says enough
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        if named:
            return named.group(1)
    return platform.processor() or "unknown"
