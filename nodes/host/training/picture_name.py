"""The file name of a training's style picture, traced through the prompt to the node that loads it.

It names the LoRA's file and decides nothing else. The trace reads nothing but the inputs of the nodes that the picture
comes from, and the host's cache knows all of those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from comfy_execution.graph import nodes as host_nodes
from comfy_execution.graph_utils import is_link

TOKEN = "%style_image%"
UNKNOWN = "style"
LONGEST = 60
"""Bytes of a picture's name that are used."""
FILE = re.compile(
    r"(?:.*[\\/])?([^\\/]+)\.(?:png|jpe?g|jfif|webp|bmp|gif|tiff?|avif|jxl|heic)(?: \[\w+\])?", re.IGNORECASE
)
"""A picture's file as loaders have it: 'ink.png', 'folder/ink.png', 'ink.png [output]'."""

Prompt = Mapping[str, Mapping[str, Any]]


def resolved(prefix: str, prompt: Prompt | None, node_id: str | None, name: str) -> str:
    """A file name prefix with the token replaced by the name of the picture at input ``name`` of a node."""
    if TOKEN not in prefix:
        return prefix
    return prefix.replace(TOKEN, traced_name(prompt or {}, node_id, name) or UNKNOWN)


def traced_name(prompt: Prompt, node_id: str | None, name: str) -> str:
    """The picture's file name without its ending, in letters that any file system takes; empty where none is found.

    Depth first along IMAGE inputs, in their order: the first node without any that names a picture file.
    """
    todo, seen = [(prompt.get(str(node_id)) or {}).get("inputs", {}).get(name)], set()
    while todo:
        link = todo.pop()
        key = str(link[0]) if is_link(link) else ""
        if key in seen or key not in prompt:
            continue
        seen.add(key)
        inputs = prompt[key].get("inputs", {})
        links = [value for value in inputs.values() if is_link(value) and _is_picture(prompt, value)]
        if not links and (found := _file_name(inputs)):
            return found
        todo += reversed(links)
    return ""


def _is_picture(prompt: Prompt, link: list[Any]) -> bool:
    """Whether an output carries pictures, or whatever is put through it, as reroutes and switches do."""
    source = host_nodes.NODE_CLASS_MAPPINGS.get(prompt.get(str(link[0]), {}).get("class_type"))
    types = getattr(source, "RETURN_TYPES", ())
    kind = types[link[1]] if link[1] < len(types) else ""
    return kind == "*" or kind.startswith("COMFY_") or "IMAGE" in kind.split(",")


def _file_name(inputs: Mapping[str, Any]) -> str:
    files = (FILE.fullmatch(value.strip()) for value in inputs.values() if isinstance(value, str))
    return next((plain for file in files if file and (plain := _plain(file[1]))), "")


def _plain(stem: str) -> str:
    name = re.sub(r"[^\w.-]+", "-", stem).encode("utf-8")[:LONGEST].decode("utf-8", "ignore")
    return name.strip("-._ ")
