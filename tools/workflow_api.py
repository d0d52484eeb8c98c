"""UI-format workflows (what ComfyUI's editor saves, version 0.4) to API format (what its server runs).

Does what the editor's graphToPrompt does, from the file and /object_info alone. Widget values are stored by position
there; /object_info tells whose they are. tests/browser compares the outcome with the editor's own.
Not converted: subgraphs, and dynamic prompts ({a|b}), which the editor draws from at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tools.workflow_widgets import WorkflowError, widget_inputs

Api = dict[str, dict[str, Any]]

_MUTED, _BYPASSED = 2, 4
_NOTES = ("Note", "MarkdownNote")
_PRIMITIVE = "PrimitiveNode"
_EDITOR_ONLY = (*_NOTES, "Reroute", _PRIMITIVE)


def to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> Api:
    """Convert a workflow. Raises WorkflowError, which names the node, for what the server would not understand."""
    graph = _Graph(workflow)
    api: Api = {}
    for node in graph.nodes.values():
        if node["type"] in _EDITOR_ONLY or _mode(node) in (_MUTED, _BYPASSED):
            continue
        info = object_info.get(node["type"])
        if info is None:
            raise WorkflowError(
                f"node {node['id']} is a {node['type']!r}, which this server does not have: install or mend its pack"
            )
        inputs = widget_inputs(info, node.get("widgets_values", ()))
        inputs.update(_linked_inputs(graph, node, inputs))
        title = node.get("title") or info.get("display_name") or node["type"]
        api[str(node["id"])] = {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}
    return api


def find_nodes(api: Api, target: str) -> list[str]:
    """The ids of the nodes with that title, class or id."""
    titled = [key for key, node in api.items() if node.get("_meta", {}).get("title") == target]
    return titled or [key for key, node in api.items() if target in (node["class_type"], key)]


def set_input(api: Api, target: str, name: str, value: object) -> None:
    """Set an input of all nodes with that title, class or id. Raises WorkflowError when there is nothing to set."""
    found = find_nodes(api, target)
    if not found:
        known = sorted({node.get("_meta", {}).get("title") or node["class_type"] for node in api.values()})
        raise WorkflowError(f"no node is titled, or of class, {target!r}; there are: {', '.join(known)}")
    for node_id in found:
        inputs = api[node_id]["inputs"]
        if name not in inputs:
            raise WorkflowError(f"{target!r} has no input {name!r} to set; it has: {', '.join(sorted(inputs))}")
        if _is_link(inputs[name]):
            raise WorkflowError(f"input {name!r} of {target!r} comes from node {inputs[name][0]}: set it there")
        inputs[name] = value


@dataclass(frozen=True)
class _Link:
    origin: str
    slot: int


@dataclass(frozen=True)
class _Value:
    """What a PrimitiveNode puts in place of a link."""

    value: object


class _Graph:
    def __init__(self, workflow: dict[str, Any]) -> None:
        if not isinstance(workflow.get("nodes"), list):
            raise WorkflowError("this is no UI-format workflow: it has no list 'nodes' (is it in API format already?)")
        subgraphs = {entry["id"] for entry in (workflow.get("definitions") or {}).get("subgraphs") or ()}
        self.nodes: dict[str, dict[str, Any]] = {str(node["id"]): node for node in workflow["nodes"]}
        self.links = dict(_read_link(link) for link in workflow.get("links") or ())
        for node in self.nodes.values():
            if node["type"] in subgraphs:
                raise WorkflowError(f"node {node['id']} is a subgraph: unpack it in the editor and save again")

    def resolve_input(self, node: dict[str, Any], slot: int, kind: str, seen: frozenset[str]) -> _Link | _Value | None:
        """Where the value at an input comes from, through reroutes and bypassed nodes; None when from nowhere."""
        link_id = node["inputs"][slot].get("link")
        if link_id is None:
            return None
        if link_id not in self.links:
            raise WorkflowError(
                f"input {node['inputs'][slot]['name']!r} of node {node['id']} has unknown link {link_id}"
            )
        link = self.links[link_id]
        place = f"{link.origin}:{link.slot}"
        if place in seen:
            raise WorkflowError(f"the links through node {link.origin} go round in a circle")
        if link.origin not in self.nodes:
            raise WorkflowError(f"link {link_id} comes from node {link.origin}, which the workflow does not have")
        return self._resolve_output(self.nodes[link.origin], link.slot, kind, seen | {place})

    def _resolve_output(
        self, node: dict[str, Any], slot: int, kind: str, seen: frozenset[str]
    ) -> _Link | _Value | None:
        if _mode(node) == _MUTED or node["type"] in _NOTES:
            return None
        if _mode(node) == _BYPASSED:
            through = _bypass_slot(node, slot, kind)
            return None if through is None else self.resolve_input(node, through, kind, seen)
        if node["type"] == _PRIMITIVE:
            values = node.get("widgets_values") or [None]
            return _Value(values[0])
        if node["type"] == "Reroute":
            return self.resolve_input(node, 0, kind, seen)
        return _Link(str(node["id"]), slot)


def _linked_inputs(graph: _Graph, node: dict[str, Any], widgets: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for slot, socket in enumerate(node.get("inputs") or ()):
        source = graph.resolve_input(node, slot, socket["type"], frozenset())
        if isinstance(source, _Link):
            found[socket["name"]] = [source.origin, source.slot]
        elif isinstance(source, _Value) and socket["name"] in widgets:
            found[socket["name"]] = source.value
    return found


def _bypass_slot(node: dict[str, Any], slot: int, kind: str) -> int | None:
    """The input that takes the place of an output of a bypassed node: the one opposite, else the first that fits."""
    inputs = node.get("inputs") or []
    kinds = [socket["type"] for socket in inputs]
    given = node["outputs"][slot]["type"]
    if kind in ("*", ""):
        return (slot if slot < len(inputs) else 0) if inputs else None
    if slot < len(kinds) and _fits(kinds[slot], given) and _fits(kinds[slot], kind):
        return slot
    exact = (index for index, other in enumerate(kinds) if other == kind)
    near = (index for index, other in enumerate(kinds) if _fits(other, given) and _fits(other, kind))
    return next(exact, next(near, None))


def _fits(one: str, other: str) -> bool:
    if one in ("", "*", 0) or other in ("", "*", 0):
        return True
    return bool(set(str(one).lower().split(",")) & set(str(other).lower().split(",")))


def _read_link(link: Any) -> tuple[int, _Link]:
    """[id, origin, slot, target, slot, type], or the same as a dict."""
    if isinstance(link, dict):
        return link["id"], _Link(str(link["origin_id"]), int(link["origin_slot"]))
    return link[0], _Link(str(link[1]), int(link[2]))


def _mode(node: dict[str, Any]) -> int:
    return int(node.get("mode", 0))


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2
