"""Mask by FastSAM in a process of its own, as on a user's machine: no pytest, no network, an empty home.

Run by test_fastsam_alone.py: python fastsam_alone.py PACK WEIGHTS_FOLDER; prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
import threading
from pathlib import Path

pack, weights = Path(sys.argv[1]), Path(sys.argv[2])
sys.argv = sys.argv[:1]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, os.environ["COMFYUI_PATH"])
attempts: list[str] = []


def forbidden(*given, **_):
    attempts.append(repr(given[1:] if isinstance(given[0], socket.socket) else given))
    raise OSError("no network here")


import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True

import comfy.options  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401 - as main.py does: an older nodes.py puts another utils first
from fastsam_bench import DEFAULTS, LEFT, SCENE, overlap, process_state  # noqa: E402

import nodes as host_nodes  # noqa: E402


def run(node, **changes):
    with torch.inference_mode():
        return node.execute(SCENE, **{**DEFAULTS, **changes}).result


def main():
    assert asyncio.run(host_nodes.load_custom_node(str(pack)))
    name = f"{str(pack).replace('.', '_x_')}.nodes.masks.fastsam"
    node = importlib.import_module(name).FastSAMMask
    registered = folder_paths.get_folder_paths("fastsam")
    folder_paths.folder_names_and_paths["fastsam"] = ([str(weights)], set())
    folder_paths.set_temp_directory(str(Path.home() / "host temp"))
    loaded_early = sorted({"ultralytics", "matplotlib"} & set(sys.modules))
    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = forbidden
    before, threads = process_state(), threading.active_count()
    states, errors = [], []
    try:
        run(node, fastsam_name="corrupt.pt")
    except ValueError as error:
        errors.append(str(error))
    states.append(process_state())
    mask = run(node, mode="points", points="40, 56")[0]
    states.append(process_state())
    run(node, fastsam_name="never.pt")
    states.append(process_state())
    result = {
        "changed": sorted({key for state in states for key in before if state[key] != before[key]}),
        "attempts": attempts,
        "errors": errors,
        "overlap": overlap(mask, LEFT),
        "loaded early": loaded_early,
        "registered": registered,
        "telemetry": sys.modules["ultralytics.utils.events"].events.enabled,
        "threads": threading.active_count() - threads,
        "files": sorted(
            str(path.relative_to(Path.home()))
            for path in Path.home().rglob("*")
            if not path.is_dir() or not any(path.iterdir())
        ),
    }
    print(json.dumps(result))  # noqa: T201 - this is what the test reads


main()
