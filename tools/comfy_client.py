"""A client of ComfyUI's HTTP and websocket interface. Blocking; callbacks come in the caller's thread.

Runs under the Python of ComfyUI's environment, which has aiohttp.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tools.comfy_events import EventStream, Message, StreamClosed
from tools.comfy_progress import Api, Progress, PromptProgress

__all__ = [
    "Api", "ComfyClient", "ImageRef", "Progress", "PromptError", "PromptInterrupted", "PromptResult", "RequestFailed",
]  # fmt: skip


@dataclass(frozen=True)
class ImageRef:
    """A picture as the server names it."""

    filename: str
    subfolder: str = ""
    type: str = "output"


@dataclass(frozen=True)
class PromptResult:
    """What a prompt left: the ui outputs per node (images, text, ...), and the seconds each node took."""

    prompt_id: str
    outputs: dict[str, dict[str, Any]]
    node_seconds: dict[str, float]
    cached: frozenset[str]
    seconds: float

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

    def answers(self) -> bool:
        """Whether the server is up and takes requests."""
        try:
            self._call("GET", "/system_stats", seconds=5.0)
        except (aiohttp.ClientError, asyncio.TimeoutError, RequestFailed):  # not yet
            return False
        return True

    def object_info(self) -> dict[str, Any]:
        """Every node class: its inputs, outputs and names."""
        return dict(json.loads(self._call("GET", "/object_info")))

    def history(self) -> dict[str, Any]:
        """What the server remembers of its runs, by the prompt's id: outputs and status."""
        return dict(json.loads(self._call("GET", "/history")))

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Cancel that prompt if it is running, or whatever is."""
        self._call("POST", "/interrupt", json={} if prompt_id is None else {"prompt_id": prompt_id})

    def free_cache(self) -> None:
        """Unload the models and forget all cached results. The server does it at its next idle moment."""
        self._call("POST", "/free", json={"unload_models": True, "free_memory": True})
        time.sleep(0.5)  # it gives no sign when it has: its worker wakes at once when idle

    def upload_image(self, path: Path, name: str | None = None) -> str:
        """Put a picture into the server's input folder, over one of the same name. -> the name LoadImage takes"""
        form = aiohttp.FormData({"overwrite": "true"}, quote_fields=False)
        form.add_field("image", path.read_bytes(), filename=name or path.name)
        return str(json.loads(self._call("POST", "/upload/image", data=form))["name"])

    def image_bytes(self, image: ImageRef) -> bytes:
        """The encoded picture, as the server stores it."""
        query = {"filename": image.filename, "subfolder": image.subfolder, "type": image.type}
        return self._call("GET", "/view", params=query)

    def queue(
        self, prompt: Api, on_progress: Callable[[Progress], None] | None = None, *, timeout: float | None = None
    ) -> PromptResult:
        """Run an API-format prompt to its end.

        Raises PromptError (with node id, class and exception) when a node fails or is refused, PromptInterrupted,
        TimeoutError after `timeout` seconds; whatever ends the wait early also interrupts the prompt.
        """
        self._check_alive()
        began, client_id = time.monotonic(), uuid.uuid4().hex
        with EventStream(self.url, client_id) as events:
            prompt_id = self._submit(prompt, client_id)
            progress = PromptProgress(prompt, prompt_id, on_progress)
            try:
                while not progress.finished:
                    progress.take(self._next(events, began, timeout))
            except BaseException:
                self._give_up(prompt_id)
                raise
        entry = dict(json.loads(self._call("GET", f"/history/{prompt_id}")).get(prompt_id, {}))
        _raise_failure(entry)
        cached, seconds = frozenset(progress.cached), time.monotonic() - began
        return PromptResult(prompt_id, entry.get("outputs", {}), progress.seconds, cached, seconds)

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
            answer = json.loads(self._call("POST", "/prompt", json={"prompt": prompt, "client_id": client_id}))
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
            self._call("POST", "/queue", json={"delete": [prompt_id]})
            self.interrupt(prompt_id)
        except aiohttp.ClientConnectionError:  # the server is gone, and the prompt with it; the caller has the reason
            return

    def _call(self, method: str, path: str, *, seconds: float = 60.0, **content: Any) -> bytes:
        """One request, in a thread with an event loop of its own: one may be at work in the caller's (Playwright's)."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _request(method, self.url, path, seconds, content)).result()


async def _request(method: str, url: str, path: str, seconds: float, content: dict[str, Any]) -> bytes:
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, url + path, **content) as answer,
    ):
        body = await answer.read()
    if answer.status != 200:
        raise RequestFailed(f"{method} {path}", answer.status, body.decode("utf-8", "replace"))
    return body


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
