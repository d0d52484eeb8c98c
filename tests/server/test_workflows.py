"""Every bundled workflow on a real server with the demo checkpoint, at a size that takes seconds on a CPU."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.server.small_run import SETTINGS
from tools.comfy_client import PromptError
from tools.gallery import NOT_RUN
from tools.workflow_api import find_nodes, set_input

FILES = [file for file in sorted((Path(__file__).parents[1] / "workflows").glob("*.json")) if file.stem not in NOT_RUN]
OTHER_SETTINGS = {
    "DiffStyler_CycleDiffusionInvert": {"steps": 10, "skip": 2, "formula": "DDIM"},
    "DiffStyler_StochasticInversion": {"steps": 10},
    "DiffStyler_TrainStyleEmbedding": {"steps": 3, "resolution": 64},
}
WORDS = {
    "DiffStyler_RegionalStyle": "style 1",
    "DiffStyler_PreviewStyles": "%",
    "DiffStyler_LoraSwitch": "0 to 60 %",
    "DiffStyler_SpatialRamp": "",
    "DiffStyler_CycleDiffusionInvert": "8 of 10 steps",
    "DiffStyler_BlendConditionings": "% of the picture",
    "DiffStyler_TrainStyleEmbedding": "trained 3 steps",
    "DiffStyler_ShareFrames": "each frame also looks at: first",
    "DiffStyler_FrameConsistency": "8 frames: warped-frame difference 0.",
}
CLIP_FRAMES = 8


def small(file):
    prompt = json.loads(file.read_text(encoding="utf-8"))
    for target, inputs in [*SETTINGS.items(), *OTHER_SETTINGS.items()]:
        for name, value in inputs.items() if find_nodes(prompt, target) else ():
            set_input(prompt, target, name, value)
    return prompt


def pixels(client, image):
    with Image.open(io.BytesIO(client.image_bytes(image))) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def frames_of(client, file):
    """The pictures of a saved video."""
    with av.open(io.BytesIO(client.image_bytes(file))) as video:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_workflow_runs_and_says_what_it_did(client, file):
    prompt = small(file)
    result = client.queue(prompt)
    for kind, words in WORDS.items():
        for node_id in find_nodes(prompt, kind):
            assert words in result.text(node_id), (node_id, result.text(node_id))
    bare = find_nodes(prompt, "DiffStyler_CycleDiffusionInvert")
    for node_id in find_nodes(prompt, "DiffStyler_InjectedSampler"):
        assert ("nothing injected" if bare else "10 steps") in result.text(node_id), result.text(node_id)
    saved = find_nodes(prompt, "SaveImage") + find_nodes(prompt, "SaveVideo")
    assert saved
    for node_id in saved:
        (made,) = result.images(node_id)
        kind = prompt[node_id]["class_type"]
        pictures = [pixels(client, made)] if kind == "SaveImage" else frames_of(client, made)
        assert len(pictures) == (1 if kind == "SaveImage" else CLIP_FRAMES)
        for picture in pictures:
            assert picture.shape == (64, 64, 3)
            assert picture.std() > 5
    for kind in ("DiffStyler_PreviewStyles", "DiffStyler_LoraSwitch"):
        for node_id in find_nodes(prompt, kind):
            assert result.images(node_id), f"{kind} shows no picture"
    again = client.queue(small(file))
    assert again.cached == set(prompt), "the same prompt again is all cached"


def test_outside_the_mask_the_photograph_comes_back(client):
    """Style in a mask: pasted back, the pixels far from the mask are the content's own, bit for bit."""
    prompt = small(next(file for file in FILES if "style in a mask" in file.stem))
    upscale, pasted = (
        find_nodes(prompt, "DiffStyler_ScalePicture")[0],
        find_nodes(prompt, "With the original pixels outside")[0],
    )
    prompt["content"] = {"class_type": "SaveImage", "inputs": {"images": [upscale, 0], "filename_prefix": "content"}}
    (paste,) = find_nodes(prompt, "DiffStyler_PasteContent")
    prompt[paste]["inputs"].update(grow=0, feather=0)
    result = client.queue(prompt)
    ours, content = (pixels(client, result.images(node)[0]) for node in (pasted, "content"))
    same = (ours == content).all(-1)
    assert 0.1 < same.mean() < 0.9
    assert same[0, 0]
    assert same[-1, -1]


OPTIONAL = ("styles", "outside", "mask_grow", "mask_feather", "injection")


def test_a_prompt_may_leave_out_what_is_optional(client):
    prompt = small(next(file for file in FILES if file.stem.endswith("one style")))
    (sampler,) = find_nodes(prompt, "DiffStyler_InjectedSampler")
    prompt[sampler]["inputs"] = {k: v for k, v in prompt[sampler]["inputs"].items() if k not in OPTIONAL}
    result = client.queue(prompt)
    assert result.images(find_nodes(prompt, "SaveImage")[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Style 1: the subject": {"strength": 9.0}}, "strength"),
        ({"DiffStyler_InjectedSampler": {"outside": "blur"}}, "outside"),
        ({"DiffStyler_InjectedSampler": {"mask_feather": -1}}, "mask_feather"),
    ],
)
def test_values_out_of_range_are_refused_before_the_run(client, changes, words):
    prompt = small(next(file for file in FILES if "two masks" in file.stem))
    for target, inputs in changes.items():
        for name, value in inputs.items():
            set_input(prompt, target, name, value)
    with pytest.raises(PromptError, match=words):
        client.queue(prompt)
