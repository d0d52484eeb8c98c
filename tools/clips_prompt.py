"""The prompts behind demo/clips.md: the short clip's workflow on other contents, styles and ways of sharing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

from tools import results_prompt as rp
from tools.comfy_client import Api
from tools.workflow_api import find_nodes, set_input

WORKFLOW = "DiffStyler - short clip"
CONTENTS = (
    "content_bay.jpg",
    "content_houses.jpg",
    "content_coffee.jpg",
    "content_astronaut.jpg",
    "content_chelsea.jpg",
)
STYLES = rp.STYLES
ALONE = "none"
LOOKINGS = (ALONE, "first", "all")
FRAMES = 6
STEADY, FIGURES = "steadiness csv", "figures csv"


class Result(NamedTuple):
    """One clip of the comparison. looking: what each frame looks at beside itself; ``ALONE``: nothing."""

    content: str
    style: rp.Style
    looking: str

    @property
    def name(self) -> str:
        return f"{rp.name_of(self.content)}, {self.style.name}, {self.looking}"


def results_of(contents: int, styles: int) -> Iterator[Result]:
    """Every result of the first contents and styles; those of one content stand together, which is captured once."""
    for content in CONTENTS[:contents]:
        for style in STYLES[:styles]:
            for looking in LOOKINGS:
                yield Result(content, style, looking)


def clip_prompt(workflow: Api, result: Result) -> Api:
    """The workflow's prompt for one result; its figures are shown as text by the nodes STEADY and FIGURES."""
    api = copy.deepcopy(workflow)
    set_input(api, "Content clip", "picture", result.content)
    set_input(api, "Content clip", "frames", FRAMES)
    set_input(api, "Style picture", "picture", result.style.picture)
    for title in ("Training prompt", "Prompt"):
        set_input(api, title, "text", result.style.learnt)
    (share,), (sampler,) = (find_nodes(api, f"DiffStyler_{kind}") for kind in ("ShareFrames", "InjectedSampler"))
    if result.looking == ALONE:
        api[sampler]["inputs"]["model"] = api.pop(share)["inputs"]["model"]
    else:
        set_input(api, share, "look_at", result.looking)
    (steady,), (style,) = find_nodes(api, "DiffStyler_FrameConsistency"), find_nodes(api, "Style picture")
    wires = api[steady]["inputs"]
    compared = {
        "result": wires["frames"], "content": wires["content"], "style": [style, 0], "halves": False,
        "lpips_weights": "none", "source_prompt": "", "target_prompt": "",
    }  # fmt: skip
    api["compared"] = {"class_type": "DiffStyler_CompareResult", "inputs": compared, "_meta": {"title": "compared"}}
    for title, source in ((STEADY, [steady, 2]), (FIGURES, ["compared", 2])):
        api[title] = {"class_type": "PreviewAny", "inputs": {"source": source}, "_meta": {"title": title}}
    return api
