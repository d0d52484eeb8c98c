"""The pictures that went into a prompt and came out of it, each under its node's title."""

from __future__ import annotations

import io
from pathlib import Path

from tools.comfy_client import Api, ComfyClient, ImageRef, PromptResult
from tools.demo_sheet import Panel, png_of

PICTURES = Path(__file__).absolute().parent.parent / "demo" / "pictures"
LOADERS = {  # class -> the input that names the picture
    "LoadImage": "image",
    "DiffStyler_ExamplePicture": "picture",
    "DiffStyler_ExampleClip": "picture",
}
SAVING = ("SaveImage", "SaveVideo")
PASSING = ("ImageCropV2",)  # nodes that show what they pass on, which is no result
FIRST = ("Content picture", "Content clip", "Style picture", "Style picture 1", "Style picture 2", "VAE reconstruction")


def panels_of(client: ComfyClient, api: Api, result: PromptResult) -> list[Panel]:
    """What went in, then what nodes show, then what was saved."""
    panels = [*_sources(client, api), *_results(client, api, result)]
    return sorted(panels, key=lambda panel: FIRST.index(panel.label) if panel.label in FIRST else len(FIRST))


def _sources(client: ComfyClient, api: Api) -> list[Panel]:
    panels = []
    for node in api.values():
        name = node["inputs"].get(LOADERS.get(node["class_type"], ""))
        if name is None:
            continue
        uploaded = ImageRef(name, "", "input")
        data = client.image_bytes(uploaded) if node["class_type"] == "LoadImage" else (PICTURES / name).read_bytes()
        panels.append(Panel(node["_meta"]["title"], data))
    return panels


def _ends_of(title: str, video: bytes) -> list[Panel]:
    """A video's first frame, under its node's title, and its last."""
    import av

    with av.open(io.BytesIO(video)) as file:
        frames = [frame.to_image() for frame in file.decode(video=0)]
    return [Panel(title, png_of(frames[0])), Panel(f"{title}, frame {len(frames)}", png_of(frames[-1]))]


def _results(client: ComfyClient, api: Api, result: PromptResult) -> list[Panel]:
    panels = []
    saved = {node_id for node_id, node in api.items() if node["class_type"] in SAVING}
    shown = {key for key in result.outputs if api.get(key, {}).get("class_type") not in PASSING}
    for node_id in sorted(shown, key=lambda key: (key in saved, len(key), key)):
        images = result.images(node_id)
        title = api.get(node_id, {}).get("_meta", {}).get("title", node_id)
        if api.get(node_id, {}).get("class_type") == "SaveVideo":
            panels += _ends_of(title, client.image_bytes(images[0]))
            continue
        for number, image in enumerate(images, 1):
            label = title if len(images) == 1 else f"{title} {number}"
            panels.append(Panel(label, client.image_bytes(image)))
    return panels
