"""Writes tests/workflows: the API prompt of every workflow, as a real server's nodes take it. And those of scripts/.

    python3 tools/dev.py run -- tools/workflow_fixtures.py

The browser tests hold each against what the real frontend queues; the other tests run from them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools.pack_server import ROOT, pack_server
from tools.workflow_api import Api, to_api

EXAMPLES = {"one_style.json": "DiffStyler - one style", "short_clip.json": "DiffStyler - short clip"}
"""The prompts of scripts/, with loaders in place of the pack's own pictures, and the workflows that they are of."""
LOADERS = {
    "DiffStyler_ExamplePicture": ("LoadImage", {"image": "picture.png"}),
    "DiffStyler_ExampleClip": ("LoadVideo", {"file": "clip.mp4"}),
}


def main() -> None:
    with pack_server(ROOT / ".host" / "base") as server:
        nodes = server.client.object_info()
    for file in sorted((ROOT / "workflows").glob("*.json")):
        prompt = to_api(json.loads(file.read_text(encoding="utf-8")), nodes)
        kept = ROOT / "tests" / "workflows" / file.name
        kept.write_text(json.dumps(prompt, indent=1) + "\n", encoding="utf-8")
        print(kept)
    for name, title in EXAMPLES.items():
        prompt = json.loads((ROOT / "tests" / "workflows" / f"{title}.json").read_text(encoding="utf-8"))
        kept = ROOT / "scripts" / name
        kept.write_text(json.dumps(with_loaders(prompt), indent=1) + "\n", encoding="utf-8")
        print(kept)


def with_loaders(prompt: Api) -> Api:
    """The prompt as someone has it who put Load Image and Load Video in place of the pack's examples."""
    loaders = {key: LOADERS[node["class_type"]] for key, node in prompt.items() if node["class_type"] in LOADERS}
    replaced = {key: {"inputs": dict(inputs), "class_type": kind} for key, (kind, inputs) in loaders.items()}
    return {key: {**node, **replaced.get(key, {})} for key, node in prompt.items()}


if __name__ == "__main__":
    main()
