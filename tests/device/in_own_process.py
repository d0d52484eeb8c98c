"""The pack's path in a host of its own, started with the host's own arguments; its results go to a file.

python in_own_process.py KIND SEED DTYPE RESULTS [the host's arguments, e.g. --cpu or --lowvram]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLACES = (os.environ["COMFYUI_PATH"], HERE.parent / "host", HERE, HERE.parents[1])
kind, seed, dtype, results = sys.argv[1:5]
sys.path[:0] = map(str, PLACES)
sys.argv[1:] = sys.argv[5:]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import main  # noqa: E402, F401 - the host's start, where it chooses how weights are kept
import runs  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402

import nodes as host_nodes  # noqa: E402
from tools.pack_loader import load_pack  # noqa: E402

with torch.inference_mode():
    path = runs.Path(load_pack(host_nodes), kind, int(seed))
    found = path.run(runs.make_model(kind, int(seed), getattr(torch, dtype)))
    safetensors.torch.save_file({name: tensor.float().cpu().contiguous() for name, tensor in found.items()}, results)
