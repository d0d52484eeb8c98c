"""`dev.py demo` after the set-up: run a workflow on a real server, save its pictures, say where the time went.

Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools.comfy_client import Api, ComfyClient, Progress, PromptError, PromptInterrupted, PromptResult
from tools.comfy_server import ComfyServer, ServerFailed, pack_problems
from tools.demo_panels import panels_of
from tools.demo_sheet import save_sheet
from tools.devkit.base import PACK, prepare_base
from tools.devkit.console import Failure, StatusLine, duration, say
from tools.devkit.demo_options import demo_parser
from tools.devkit.links import link_file
from tools.devkit.process import interrupts_on_terminate
from tools.workflow_api import find_nodes, set_input, to_api
from tools.workflow_widgets import WorkflowError

ROOT = Path(__file__).absolute().parent.parent
BASE = ROOT / ".host" / "base"


def main(arguments: list[str]) -> int:
    interrupts_on_terminate()
    options = demo_parser("dev.py demo").parse_args(arguments)
    comfyui = Path(os.environ["COMFYUI_PATH"])
    workflow = read_workflow(options.workflow)
    prepare_base(BASE, ROOT)
    checkpoint = stage_checkpoint(options.checkpoint, comfyui, BASE)
    say("Starting ComfyUI (about 15 seconds on a slow machine) ...")
    began = time.monotonic()
    log = ROOT / ".host" / "logs" / "demo-server.log"
    with ComfyServer(comfyui, base_directory=BASE, extra_args=("--disable-api-nodes",), log_path=log) as server:
        device = "the CPU, as there is no GPU" if server.cpu else "the GPU"
        say(f"ComfyUI is up after {duration(time.monotonic() - began)} at {server.url}, on {device}.")
        object_info = server.client.object_info()
        require_pack(server, object_info)
        api = to_api(workflow, object_info)
        apply_options(api, options, checkpoint, server.client)
        require_checkpoints(api, object_info)
        result = run_prompt(server.client, api)
        folder = (options.output or ROOT / ".host" / "demo-output").absolute()
        report(api, result, save_pictures(server.client, api, result, folder))
        if options.open:
            leave_open(server)
    return 0


def read_workflow(name: str) -> dict[str, Any]:
    candidates = [Path(name).expanduser(), *(ROOT / "workflows" / f"{name}{end}" for end in ("", ".json"))]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        there = ", ".join(repr(path.stem) for path in sorted((ROOT / "workflows").glob("*.json"))) or "none"
        raise Failure("read the workflow", f"there is no workflow {name!r}.", f"give a path, or one of: {there}.")
    return dict(json.loads(found.read_text(encoding="utf-8")))


def stage_checkpoint(wanted: str | None, comfyui: Path, base: Path) -> str | None:
    """Put the wanted checkpoint where the server finds it. -> its name"""
    if wanted is None:
        return None
    models = Path("models") / "checkpoints"
    for path in (Path(wanted).expanduser().absolute(), comfyui / models / wanted):
        if path.is_file():
            link_file(path, base / models / path.name)
            return path.name
    return wanted  # it may be there already, or in extra_model_paths.yaml: require_checkpoints looks


def require_pack(server: ComfyServer, object_info: dict[str, Any]) -> None:
    """ComfyUI drops a pack whose import or whose one schema fails, and starts all the same."""
    problems = pack_problems(server.log_text(), PACK)
    nodes = [name for name in object_info if name.startswith("DiffStyler_")]
    if problems or not nodes:
        shown = "\n".join(f"    {line}" for line in problems) or "    (no word about it)"
        raise Failure(
            "load the pack",
            f"the server has {len(nodes)} DiffStyler nodes; its log says:\n{shown}",
            f"mend the node that is named; the whole log is {server.log_path}.",
        )
    say(f"The pack is loaded: {len(nodes)} nodes.")


def require_checkpoints(api: Api, object_info: dict[str, Any]) -> None:
    kind, extra = object_info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][:2]
    known = kind if isinstance(kind, list) else extra["options"]
    for node_id in find_nodes(api, "CheckpointLoaderSimple"):
        name = api[node_id]["inputs"]["ckpt_name"]
        if name not in known:
            raise Failure(
                "find the checkpoint",
                f"the server has no checkpoint {name!r}; it has: {', '.join(known) or 'none'}.",
                "give --checkpoint a path, or a name from ComfyUI's models/checkpoints.",
            )


def apply_options(api: Api, options: Namespace, checkpoint: str | None, client: ComfyClient) -> None:
    """Change the prompt as the command line says. An option that has nothing to act upon is an error."""
    use_content(api, options.content, options.mask, client)
    for number, picture in enumerate(options.style, 1):
        title = f"Style picture {number}"
        plain = number == 1 and not find_nodes(api, title)
        use_picture(api, "Style picture" if plain else title, client.upload_image(picture))
    if options.prompt is not None:
        set_input(api, "Prompt", "text", options.prompt)
    if checkpoint is not None:
        for node_id in find_nodes(api, "CheckpointLoaderSimple") or ["CheckpointLoaderSimple"]:
            set_input(api, node_id, "ckpt_name", checkpoint)
    if options.train_steps is not None:
        set_input(api, "DiffStyler_TrainStyleLoRA", "steps", options.train_steps)
    if options.steps is not None:
        set_input(api, "DiffStyler_DDIMInvert", "steps", options.steps)
    for node, name, text in options.set:
        set_input(api, node, name, read_value(text))


def use_picture(api: Api, title: str, name: str) -> None:
    """Let the node of that title load an uploaded picture: LoadImage takes the place of what was there."""
    found = find_nodes(api, title)
    if not found:
        raise WorkflowError(f"no node is titled {title!r}: this workflow has no place for that picture")
    for node_id in found:
        api[node_id].update(class_type="LoadImage", inputs={"image": name})


def use_content(api: Api, content: Path | None, mask: Path | None, client: ComfyClient) -> None:
    """Load the pictures of one's own. Where a workflow uses the content's mask, another content needs its own."""
    nodes = find_nodes(api, "Content picture")
    outputs = [[node_id, 1] for node_id in nodes]
    masked = [(node, name) for node in api.values() for name, value in node["inputs"].items() if value in outputs]
    if content is not None:
        use_picture(api, "Content picture", client.upload_image(content))
        if masked and mask is None:
            raise WorkflowError("this workflow styles the content's masked part: give --mask a picture, white there")
    if mask is None:
        return
    if not masked:
        raise WorkflowError("--mask: this workflow uses no mask of the content picture")
    loaded = {"image": client.upload_image(mask), "channel": "red"}
    api["mask"] = {"class_type": "LoadImageMask", "inputs": loaded, "_meta": {"title": "Mask"}}
    for node, name in masked:
        node["inputs"][name] = ["mask", 0]


def read_value(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # a plain string needs no quotes
        return text


def run_prompt(client: ComfyClient, api: Api) -> PromptResult:
    say(f"Running {len(api)} nodes:")
    shown = _Shown()
    try:
        return client.queue(api, shown)
    except PromptError as error:
        shown.status.clear()
        name = api.get(error.node_id, {}).get("_meta", {}).get("title", error.class_type)
        stage = "interrupted" if isinstance(error, PromptInterrupted) else f"run the node '{name}'"
        log = ROOT / ".host" / "logs" / "demo-server.log"
        raise Failure(stage, str(error), f"mend what it says; the server's log is {log}.") from error


class _Shown:
    """Each node on the terminal: live while it works, a line with its time when it is done."""

    def __init__(self) -> None:
        self.status = StatusLine(every=10.0)
        self._began = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.event == "start":
            self._began = time.monotonic()
            self.status.show(f"  {progress.title} ...")
        elif progress.event == "step":
            spent = duration(time.monotonic() - self._began)
            self.status.show(f"  {progress.title}: {progress.value:.0f} of {progress.maximum:.0f}, {spent}")
        else:
            self.status.clear()
            time_taken = "cached" if progress.event == "cached" else duration(progress.seconds)
            say(f"  {progress.title:<32} {time_taken:>12}")


def save_pictures(client: ComfyClient, api: Api, result: PromptResult, folder: Path) -> list[Path]:
    """The pictures that came in and out, each by its title, and all of them side by side. -> the files, sheet first"""
    folder.mkdir(parents=True, exist_ok=True)
    panels = panels_of(client, api, result)
    sheet = folder / "side by side.png"
    save_sheet(panels, sheet)
    return [sheet, *(panel.save(folder) for panel in panels)]


def report(api: Api, result: PromptResult, files: list[Path]) -> None:
    for node_id, node in api.items():
        if result.text(node_id):
            say(f"\n{node['_meta']['title']}:\n{result.text(node_id)}")
    say(f"\nDone in {duration(result.seconds)}. Pictures:")
    for file in files:
        say(f"  {file}")


def leave_open(server: ComfyServer) -> None:
    say(
        f"\nThe server stays up at {server.url} (Workflow > Browse Templates has the pack's workflows). Ctrl-C ends it."
    )
    try:
        while True:
            server.check_alive()
            time.sleep(1)
    except KeyboardInterrupt:
        say("Stopping the server.")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failure, WorkflowError, ServerFailed) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # the server is stopped by now
        sys.exit(130)
