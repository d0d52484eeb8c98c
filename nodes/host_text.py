"""Words on a node: live while it works, and kept with its result."""

from __future__ import annotations

from comfy_api.latest import io, ui
from server import PromptServer


def id_of(node: type[io.ComfyNode]) -> str | None:
    """The running node's id in the graph; None when it was called without a graph."""
    return None if node.hidden is None else node.hidden.unique_id


def say(node_id: str | None, text: str) -> None:
    """Shows text on a working node. Without a server (the pack used in process) there is nobody to show it to."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def output(*values: object, text: str, node: type[io.ComfyNode]) -> io.NodeOutput:
    """A node's outputs together with the text that stays on it and in the history."""
    say(id_of(node), text)
    return io.NodeOutput(*values, ui=ui.PreviewText(text))
