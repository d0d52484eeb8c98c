"""Words and a picture on a node: the words live while it works, both kept with its result."""

from __future__ import annotations

import math

from comfy_api.latest import io, ui
from server import PromptServer
from torch import Tensor


def id_of(node: type[io.ComfyNode]) -> str | None:
    """The running node's id in the graph; None when it was called without a graph."""
    return None if node.hidden is None else node.hidden.unique_id


def say(node_id: str | None, text: str) -> None:
    """Shows text on a working node. Without a server (the pack used in process) there is nobody to show it to."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def duration(seconds: float) -> str:
    """Seconds in words: '45 s', '3 min 10 s'."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def output(*values: object, text: str, node: type[io.ComfyNode], picture: Tensor | None = None) -> io.NodeOutput:
    """A node's outputs with the text, and a picture [1, H, W, 3], that stay on it and in the history."""
    say(id_of(node), text)
    shown = ui.PreviewText(text).as_dict()
    if picture is not None:
        shown |= ui.PreviewImage(picture).as_dict()
    return io.NodeOutput(*values, ui=shown)
