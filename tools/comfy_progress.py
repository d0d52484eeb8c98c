"""How a prompt goes, read from the server's messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tools.comfy_events import Message

Api = dict[str, dict[str, Any]]  # an API-format prompt: node id -> {"class_type", "inputs", "_meta"}


@dataclass(frozen=True)
class Progress:
    """What just happened to a node. `event`: 'start', 'step' (value of maximum), 'done' (seconds) or 'cached'."""

    event: str
    node_id: str
    class_type: str
    title: str
    value: float = 0.0
    maximum: float = 0.0
    seconds: float = 0.0


@dataclass
class PromptProgress:
    """Follows one prompt: which nodes were cached, how many seconds each took, and whether it is at its end."""

    prompt: Api
    prompt_id: str
    on_progress: Callable[[Progress], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    finished: bool = False
    _node: str | None = None
    _since: float = 0.0

    def take(self, message: Message | None) -> None:
        """Reads the next message; those of other prompts, and None, change nothing."""
        if message is None or message["data"].get("prompt_id") != self.prompt_id:
            return
        kind, data = message["type"], message["data"]
        if kind == "execution_cached":
            self._on_cached(data["nodes"])
        elif kind == "progress" and data["node"] is not None:
            self._tell("step", str(data["node"]), value=float(data["value"]), maximum=float(data["max"]))
        elif kind == "executing":
            node_id = data["node"] and str(data.get("display_node") or data["node"])
            self._on_node(node_id)
            self.finished = node_id is None
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            self._on_node(None)  # 'executing' nothing follows once the history is there

    def _on_cached(self, node_ids: list[str]) -> None:
        for node_id in node_ids:
            self.cached.add(node_id)
            self._tell("cached", node_id)

    def _on_node(self, node_id: str | None) -> None:
        """Another node's turn, or nobody's."""
        if node_id == self._node:
            return
        now = time.monotonic()
        if self._node is not None:
            self.seconds[self._node] = self.seconds.get(self._node, 0.0) + now - self._since
            self._tell("done", self._node, seconds=self.seconds[self._node])
        self._node, self._since = node_id, now
        if node_id is not None:
            self._tell("start", node_id)

    def _tell(self, event: str, node_id: str, **numbers: float) -> None:
        if self.on_progress is None:
            return
        node = self.prompt.get(node_id, {})
        class_type = node.get("class_type", "")
        title = node.get("_meta", {}).get("title") or class_type or node_id
        self.on_progress(Progress(event, node_id, class_type, title, **numbers))
