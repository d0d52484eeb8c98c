"""Folders, the host's import path, and files that survive an interruption."""

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

PACK = Path(__file__).resolve().parents[2]
DEMO = PACK / "demo"


def use_host() -> None:
    """Make `import comfy` work, from the folder named in COMFYUI_PATH."""
    if "comfy" in sys.modules:
        return
    folder = os.environ.get("COMFYUI_PATH", "")
    if not (Path(folder) / "comfy").is_dir():
        raise ValueError(f"COMFYUI_PATH is {folder!r}, which holds no ComfyUI; set it to a ComfyUI folder")
    sys.path.insert(0, folder)
    given, sys.argv = sys.argv, sys.argv[:1]
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.use_pytorch_cross_attention = True
    import comfy.model_management  # reads the arguments above

    sys.argv = given


def demo_model() -> ModuleType:
    """The pack's nodes/host/demo_model.py, loaded by path: `nodes` is the host's module name."""
    if "diffstyler_demo_model" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "diffstyler_demo_model", PACK / "nodes" / "host" / "demo_model.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return sys.modules["diffstyler_demo_model"]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def save(path: Path, state: Any) -> None:
    """Write to a neighbour and rename, so that a killed process leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


class Keeper:
    """Calls `store` every two minutes; SIGTERM stores and stops the loop that asks `stopping`."""

    def __init__(self, store: Callable[[], None], seconds: float = 120.0) -> None:
        self.store, self.seconds, self.last, self.stopping = store, seconds, time.monotonic(), False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def tick(self) -> bool:
        """True when the loop must end."""
        if self.stopping or time.monotonic() - self.last > self.seconds:
            self.store()
            self.last = time.monotonic()
        return self.stopping
