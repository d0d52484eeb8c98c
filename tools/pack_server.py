"""A server with the pack in it, for tests: private folders, CPU, no calls to the outside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.comfy_server import ComfyServer
from tools.devkit.base import prepare_base
from tools.devkit.host import existing

ROOT = Path(__file__).absolute().parent.parent


@contextmanager
def pack_server(base: Path, extra_args: Sequence[str] = (), *, lora_folder: bool = False) -> Iterator[ComfyServer]:
    """Run a server whose custom_nodes holds the pack, under `base`. Raises LookupError when there is no ComfyUI.

    lora_folder: it also looks for LoRAs in input/many_servers, as docs/servers.md has it.
    """
    comfyui = existing(ROOT, os.environ)
    if comfyui is None:
        raise LookupError("there is no ComfyUI yet: run the tests with 'python3 tools/dev.py test'")
    arguments = ("--disable-api-nodes", *extra_args)
    if lora_folder:
        paths = base / "extra_model_paths.yaml"
        place = base.absolute().as_posix()
        lines = f"many_servers:\n  base_path: '{place}'\n  loras: input/many_servers\n"
        paths.write_text(lines, encoding="utf-8")
        arguments += ("--extra-model-paths-config", str(paths))
    with ComfyServer(comfyui, base_directory=prepare_base(base, ROOT), extra_args=arguments, cpu=True) as server:
        yield server
