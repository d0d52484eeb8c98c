"""A client of ComfyUI's HTTP and websocket interface. Blocking; callbacks come in the caller's thread."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.comfy_events import EventStream, Message, StreamClosed

Api = dict[str, dict[str, Any]]  # an API-format prompt: node id -> {"class_type", "inputs", "_meta"}


@dataclass(frozen=True)
class ImageRef:
    """A picture as the server names it."""

    filename: str
    subfolder: str = ""
    type: str = "output"


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
class PromptResult:
    """What a prompt left: the ui outputs per node (images, text, ...), and the seconds each node took."""

    prompt_id: str
    outputs: dict[str, dict[str, Any]]
    node_seconds: dict[str, float]
    cached: frozenset[str]
    seconds: float
    previews: int = 0

    def images(self, node_id: str) -> list[ImageRef]:
        entries = self.outputs.get(node_id, {}).get("images", [])
        return [ImageRef(entry["filename"], entry["subfolder"], entry["type"]) for entry in entries]

    def text(self, node_id: str) -> str:
        return "\n".join(str(part) for part in self.outputs.get(node_id, {}).get("text", ()))


class PromptError(RuntimeError):
    """A prompt that failed, with the node that failed: when it was checked, or while it ran."""

    def __init__(
        self, message: str, *, node_id: str = "", class_type: str = "", exception_type: str = "", trace: str = ""
    ) -> None:
        super().__init__(f"node {node_id} ({class_type}): {exception_type}: {message}" if node_id else message)
        self.message = message
        self.node_id = node_id
        self.class_type = class_type
        self.exception_type = exception_type
        self.trace = trace


class PromptInterrupted(PromptError):
    """The prompt was interrupted before its end."""


class RequestFailed(RuntimeError):
    def __init__(self, request: str, status: int, body: str) -> None:
        super().__init__(f"{request} was answered with {status}: {body[:1000]}")
        self.status = status
        self.body = body


class ComfyClient:
    """`check_alive` is called while waiting, and raises when the server is known to be gone."""

    def __init__(self, url: str, check_alive: Callable[[], None] = lambda: None) -> None:
        self.url = url.rstrip("/")
        self._check_alive = check_alive

    def object_info(self) -> dict[str, Any]:
        """Every node class: its inputs, outputs and names."""
        return dict(self._json("GET", "/object_info"))

    def system_stats(self) -> dict[str, Any]:
        return dict(self._json("GET", "/system_stats"))

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the server keeps of a finished prompt; {} when it knows none of that id."""
        return dict(self._json("GET", f"/history/{prompt_id}").get(prompt_id, {}))

    def interrupt(self, prompt_id: str | None = None) -> None:
        self._call("POST", "/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    def free_cache(self) -> None:
        """Unload the models and forget all cached results. The server does it at its next idle moment."""
        self._call("POST", "/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)  # it gives no sign when it has: its worker wakes at once when idle

    def upload_image(self, path: Path, name: str | None = None) -> str:
        """Put a picture into the server's input folder, over one of the same name. -> the name LoadImage takes"""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name or path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode(),
            path.read_bytes(),
            f"\r\n--{boundary}--\r\n".encode(),
        ]
        answer = self._call("POST", "/upload/image", b"".join(parts), f"multipart/form-data; boundary={boundary}")
        return str(json.loads(answer)["name"])

    def image_bytes(self, image: ImageRef) -> bytes:
        """The encoded picture, as the server stores it."""
        query = {"filename": image.filename, "subfolder": image.subfolder, "type": image.type}
        return self._call("GET", f"/view?{urllib.parse.urlencode(query)}")

    def queue(
        self,
        prompt: Api,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        timeout: float | None = None,
        on_preview: Callable[[bytes], None] | None = None,
    ) -> PromptResult:
        """Run an API-format prompt to its end.

        Raises PromptError (with node id, class and exception) when a node fails or is refused, PromptInterrupted,
        TimeoutError after `timeout` seconds; whatever ends the wait early also interrupts the prompt.
        """
        began = time.monotonic()
        client_id = uuid.uuid4().hex
        with EventStream(self.url, client_id) as events:
            run = _Run(prompt, self._submit(prompt, client_id), on_progress, on_preview)
            try:
                while not run.finished:
                    run.take(self._next(events, began, timeout))
            except BaseException:
                self._give_up(run.prompt_id)
                raise
        entry = self.history(run.prompt_id)
        _raise_failure(entry)
        seconds = time.monotonic() - began
        return PromptResult(
            run.prompt_id, entry.get("outputs", {}), run.seconds, frozenset(run.cached), seconds, run.previews
        )

    def _next(self, events: EventStream, began: float, timeout: float | None) -> Message | None:
        self._check_alive()
        if timeout is not None and time.monotonic() - began > timeout:
            raise TimeoutError(f"the prompt did not finish within {timeout:.0f} s")
        try:
            return events.get(1.0)
        except StreamClosed:
            time.sleep(1.0)  # a dying server closes its sockets first
            self._check_alive()
            raise

    def _submit(self, prompt: Api, client_id: str) -> str:
        try:
            answer = self._json("POST", "/prompt", {"prompt": prompt, "client_id": client_id})
        except RequestFailed as error:
            if error.status != 400:
                raise
            answer = json.loads(error.body)
            raise _refusal(answer["error"], answer["node_errors"]) from error
        prompt_id = str(answer["prompt_id"])
        if answer["node_errors"]:  # the server would run the rest of the graph
            self._give_up(prompt_id)
            raise _refusal({"message": "a part of the prompt is not valid"}, answer["node_errors"])
        return prompt_id

    def _give_up(self, prompt_id: str) -> None:
        try:
            self._call("POST", "/queue", {"delete": [prompt_id]})
            self.interrupt(prompt_id)
        except OSError:  # the server is gone, and the prompt with it; the caller has the reason
            return

    def _json(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self._call(method, path, body))

    def _call(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> bytes:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": content_type}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise RequestFailed(f"{method} {path}", error.code, error.read().decode("utf-8", "replace")) from error


@dataclass
class _Run:
    """Follows one prompt through the server's messages."""

    prompt: Api
    prompt_id: str
    on_progress: Callable[[Progress], None] | None
    on_preview: Callable[[bytes], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    previews: int = 0
    finished: bool = False
    _node: str | None = None
    _since: float = 0.0

    def take(self, message: Message | None) -> None:
        if message is None:
            return
        if isinstance(message.content, bytes):
            self._take_preview(message.content)
        elif message.content["data"].get("prompt_id") == self.prompt_id:
            self._take_event(message.content["type"], message.content["data"], message.at)

    def _take_event(self, kind: str, data: dict[str, Any], at: float) -> None:
        if kind == "execution_cached":
            self._on_cached(data["nodes"])
        elif kind == "progress" and data["node"] is not None:
            self._tell("step", str(data["node"]), value=float(data["value"]), maximum=float(data["max"]))
        elif kind == "executing":
            node_id = data["node"] and str(data.get("display_node") or data["node"])
            self._on_node(node_id, at)
            self.finished = node_id is None
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            self._on_node(None, at)  # 'executing' nothing follows once the history is there

    def _on_cached(self, node_ids: list[str]) -> None:
        for node_id in node_ids:
            self.cached.add(node_id)
            self._tell("cached", node_id)

    def _on_node(self, node_id: str | None, at: float) -> None:
        """Another node's turn, or nobody's."""
        if node_id == self._node:
            return
        if self._node is not None:
            self.seconds[self._node] = self.seconds.get(self._node, 0.0) + at - self._since
            self._tell("done", self._node, seconds=self.seconds[self._node])
        self._node, self._since = node_id, at
        if node_id is not None:
            self._tell("start", node_id)

    def _take_preview(self, message: bytes) -> None:
        kind = int.from_bytes(message[:4], "big")
        if kind == 1:  # PREVIEW_IMAGE: kind, picture format, picture
            self.previews += 1
            if self.on_preview is not None:
                self.on_preview(message[8:])

    def _tell(self, event: str, node_id: str, **numbers: float) -> None:
        if self.on_progress is not None:
            node = self.prompt.get(node_id, {})
            class_type = node.get("class_type", "")
            title = node.get("_meta", {}).get("title") or class_type or node_id
            self.on_progress(Progress(event, node_id, class_type, title, **numbers))


def _refusal(error: dict[str, Any], node_errors: dict[str, Any]) -> PromptError:
    """What the server found wrong with a prompt before running it."""
    for node_id, node in node_errors.items():
        reasons = [f"{found['message']}: {found['details']}" for found in node["errors"]]
        return PromptError(
            "; ".join(reasons), node_id=node_id, class_type=node["class_type"], exception_type="not valid"
        )
    return PromptError(f"the server refused the prompt: {error['message']} {error.get('details', '')}".strip())


def _raise_failure(entry: dict[str, Any]) -> None:
    if not entry:
        raise PromptError("the server keeps no history of the prompt: it was removed from the queue")
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_interrupted":
            raise PromptInterrupted(
                "interrupted", node_id=str(data["node_id"]), class_type=data["node_type"], exception_type="interrupt"
            )
        if kind == "execution_error":
            raise PromptError(
                data["exception_message"].strip(),
                node_id=str(data["node_id"]),
                class_type=data["node_type"],
                exception_type=data["exception_type"],
                trace="".join(data["traceback"]),
            )
