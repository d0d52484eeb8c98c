"""`dev.py gallery`: the README's and the workflows' pictures and demo/results.md, by the shipped code and checkpoint.

Every sheet is one workflow as it is shipped, run on a real server; under it stand the command, the seed and the time.
Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools.comfy_client import Api, ComfyClient, PromptResult
from tools.comfy_server import ComfyServer, ServerFailed
from tools.demo import BASE, ROOT, read_workflow, require_pack, run_prompt
from tools.demo_panels import panels_of
from tools.demo_sheet import Panel, save_sheet, save_thumbnail
from tools.devkit.base import prepare_base
from tools.devkit.console import Failure, duration, say
from tools.devkit.process import interrupts_on_terminate
from tools.results import make_results
from tools.workflow_api import find_nodes, to_api
from tools.workflow_widgets import WorkflowError

GALLERY = ROOT / "demo" / "gallery"
RESULTS = "results"  # demo/results.md: an hour on two cores; it goes on where it was interrupted
TRAININGS = ("DiffStyler_TrainStyleLoRA", "DiffStyler_TrainStyleEmbedding")
SWITCHES = ("LoRA Switch Schedule 1", "LoRA Switch Schedule 2")


class Entry(NamedTuple):
    """One sheet. sentence: on the thumbnail. swapped: also the run with the two LoRAs in the other order."""

    workflow: str
    sentence: str
    swapped: bool = False


SHEETS = {
    "one-style": Entry("DiffStyler - one style", "A photograph in the style of one picture, its structure kept."),
    "style-in-a-mask": Entry("DiffStyler - style in a mask", "One region is restyled, the rest stays the photograph."),
    "two-masks": Entry("DiffStyler - two styles, two masks", "One style for the subject, another one for the rest."),
    "two-by-steps": Entry(
        "DiffStyler - two styles by steps",
        "Two styles take turns: the first for the look, then the detail.",
        swapped=True,
    ),
    "smooth-blend": Entry(
        "DiffStyler - smooth blend of two styles", "One style passes into another across the picture."
    ),
    "short-clip": Entry("DiffStyler - short clip", "A short clip in the style of one picture, its frames alike."),
    "styleid": Entry("DiffStyler - training-free style (StyleID)", "A style without any training: StyleID."),
    "shared-attention": Entry(
        "DiffStyler - training-free style (shared attention)", "A style without any training: shared attention."
    ),
    "noise-merging": Entry("DiffStyler - two styles by noise merging", "Two prompts' predictions merged by a mask."),
    "two-prompts": Entry("DiffStyler - two prompts in one picture", "Two prompts, each read where its mask is."),
    "inst": Entry("DiffStyler - style embedding (InST)", "A style picture becomes a word for prompts."),
    "inst-described": Entry(
        "DiffStyler - style embedding and description (InST)", "A style as a word, with a description beside it."
    ),
    "inst-description": Entry("DiffStyler - style description (InST)", "A style in words alone, nothing trained."),
}
NOT_RUN = {
    "DiffStyler - DEADiff style of a picture": "A new picture in the style of a reference (needs DEADiff).",
    "DiffStyler - one style (SD1.5)": "One picture in the style of another, by Stable Diffusion 1.5 at 512.",
    "DiffStyler - one style (SDXL)": "One picture in the style of another, by SDXL at 1024.",
}
"""Workflows whose models are not in the pack: their thumbnail shows the picture that goes in."""


def main(arguments: list[str]) -> int:
    interrupts_on_terminate()
    parser = argparse.ArgumentParser(prog="dev.py gallery", description=__doc__)
    parser.add_argument(
        "sheets", nargs="*", choices=[[], *SHEETS, RESULTS], metavar="SHEET", help=", ".join([*SHEETS, RESULTS])
    )
    parser.add_argument("--output", type=Path, default=GALLERY, help="folder of the sheets (demo/gallery)")
    options = parser.parse_args(arguments)
    prepare_base(BASE, ROOT)
    log = ROOT / ".host" / "logs" / "gallery-server.log"
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with ComfyServer(comfyui, base_directory=BASE, extra_args=("--disable-api-nodes",), log_path=log) as server:
        info = server.client.object_info()
        require_pack(server, info)
        chosen = options.sheets or [*SHEETS, RESULTS]
        for name in (name for name in chosen if name != RESULTS):
            entry = SHEETS[name]
            say(f"\n{entry.workflow}")
            api = to_api(read_workflow(entry.workflow), info)
            make_sheet(server.client, api, entry, options.output / f"{name}.png")
        if RESULTS in chosen:
            report = options.output.parent / "results.md"
            make_results(server.client, options.output, report, machine())
    return 0


def make_sheet(client: ComfyClient, api: Api, entry: Entry, path: Path) -> None:
    """Runs the prompt, and saves the sheet and the workflow's thumbnail."""
    result = run_prompt(client, api)
    panels, times = panels_of(client, api, result), [cost(api, result)]
    save_thumbnail(*shown(panels), entry.sentence, ROOT / "workflows" / f"{entry.workflow}.jpg")
    if entry.swapped:
        other = swapped(api)
        again = run_prompt(client, other)
        last = shown(panels_of(client, other, again))[-1:]
        panels = [panel for panel in panels if panel.label != SWITCHES[0]]  # the second's chart shows both turns
        panels = renamed(panels, in_order(api)) + renamed(last, in_order(other))
        times.append(cost(other, again))
    command = f"python3 tools/dev.py gallery {path.stem}"
    save_sheet(panels, path, f"{command}   seed 0, {', '.join(times)} ({machine()})")
    say(f"  {path}")


def machine() -> str:
    return f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"


def cost(api: Api, result: PromptResult) -> str:
    """The time of one picture, and how much of it went into training."""
    trainings = [node for kind in TRAININGS for node in find_nodes(api, kind)]
    if not trainings:
        return duration(result.seconds)
    training = sum(result.node_seconds.get(node, 0.0) for node in trainings)
    trained = f"training {duration(training)} of it" if training >= 1.0 else "trained earlier"
    return f"{duration(result.seconds)}, {trained}"


def shown(panels: list[Panel]) -> tuple[Panel, Panel]:
    """The content and the result."""
    content = next(panel for panel in panels if panel.label in ("Content picture", "Content clip"))
    return content, next(panel for panel in panels if panel.label == "Result")


def swapped(api: Api) -> Api:
    """The same prompt with the two LoRAs, their strengths and names in the other order."""
    other = copy.deepcopy(api)
    first, second = (find_nodes(other, title)[0] for title in SWITCHES)
    for name in ("lora", "strength", "name"):
        a, b = other[first]["inputs"], other[second]["inputs"]
        a[name], b[name] = b[name], a[name]
    return other


def in_order(api: Api) -> str:
    """'A, then B' of a prompt with two turns."""
    return ", then ".join(api[find_nodes(api, title)[0]]["inputs"]["name"] for title in SWITCHES)


def renamed(panels: Sequence[Panel], label: str) -> list[Panel]:
    """The panels, the result under a label of its own."""
    return [Panel(label, panel.data) if panel.label == "Result" else panel for panel in panels]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failure, WorkflowError, ServerFailed) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # the server is stopped by now
        sys.exit(130)
