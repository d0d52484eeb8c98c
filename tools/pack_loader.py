"""The pack inside this process, loaded by the real host exactly as its server does."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PACK = Path(__file__).resolve().parent.parent


class Modules:
    """Modules of a package and of its rooms by attribute: ``Modules("pkg").room.invert`` is ``pkg.room.invert``."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(f"{self._package}.{name}")
        return Modules(module.__name__) if hasattr(module, "__path__") else module


class LoadedPack(Modules):
    """The pack's nodes by file name, and its core: ``pack.pipeline.invert``, ``pack.core.diffusion.trajectory``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}.nodes")
        self.core = Modules(f"{name}.diffstyler_core")


def prepare_host(comfyui_path: str, cpu: bool) -> ModuleType:
    """Puts ComfyUI first on sys.path and returns its ``nodes`` module. Call before anything imports comfy."""
    sys.path.insert(0, comfyui_path)
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    import comfy.utils
    import utils.extra_config  # noqa: F401 - as main.py does: an older nodes.py puts another utils first

    import nodes

    comfy.utils.set_progress_bar_enabled(False)
    return nodes


def load_pack(host_nodes: Any) -> LoadedPack:
    """Loads the pack through the host. Raises RuntimeError when the host refuses it; its log says why."""
    if not asyncio.run(host_nodes.load_custom_node(str(PACK))):
        raise RuntimeError("the host could not load the pack; its log above says why.")
    return LoadedPack(str(PACK).replace(".", "_x_"))
