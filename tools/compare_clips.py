"""`dev.py compare clips`: how steady short clips are, with and without shared attention, in demo/clips.md.

Each clip is a prompt on a real server, kept under .host when it is done; the page is written anew after every one.
Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools import clips_prompt as cp
from tools import clips_tables as tables
from tools.comfy_server import ComfyServer
from tools.comparison import options_of, run_main
from tools.demo import BASE, ROOT, read_workflow, require_pack
from tools.devkit.base import prepare_base
from tools.devkit.console import duration, say
from tools.devkit.process import interrupts_on_terminate
from tools.gallery import machine
from tools.results import fingerprint_of, kept_run
from tools.results_prompt import name_of
from tools.workflow_api import find_nodes, to_api

COMPARISON = "clips"


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    options = options_of(COMPARISON, __doc__, arguments)
    command = f"python3 tools/dev.py compare {' '.join(arguments)}"
    prepare_base(BASE, ROOT)
    log, comfyui = ROOT / ".host" / "logs" / "clips-server.log", Path(os.environ["COMFYUI_PATH"])
    fingerprint, rows, seconds = fingerprint_of(ROOT), list[tables.Row](), 0.0
    with ComfyServer(comfyui, base_directory=BASE, extra_args=("--disable-api-nodes",), log_path=log) as server:
        info = server.client.object_info()
        require_pack(server, info)
        workflow = to_api(read_workflow(cp.WORKFLOW), info)
        for result in cp.results_of(options.contents, options.styles):
            say(f"\n{result.name}")
            folder = ROOT / ".host" / COMPARISON / result.name
            run = kept_run(server.client, cp.clip_prompt(workflow, result), folder, fingerprint)
            rows.append(row_of(result, run, find_nodes(workflow, "DiffStyler_InjectedSampler")[0]))
            seconds += run["seconds"]
            write(options.output, rows, f"{duration(seconds)} on {machine()}", command)
    return 0


def row_of(result: cp.Result, run: dict[str, Any], sampler: str) -> tables.Row:
    """The figures of a kept run."""
    texts, spent = run["texts"], run["node_seconds"].get(sampler, 0.0)
    names = name_of(result.content), result.style.name, result.looking
    return tables.row_of(*names, texts[cp.STEADY], texts[cp.FIGURES], spent)


def write(folder: Path, rows: Sequence[tables.Row], made: str, command: str) -> None:
    """The page and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{COMPARISON}.md"
    page.write_text(tables.report(rows, made, command), encoding="utf-8")
    tables.write_rows(page.with_suffix(".csv"), rows)
    say(f"  {page}")


if __name__ == "__main__":
    run_main(main)
