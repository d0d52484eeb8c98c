"""The messages of a ComfyUI websocket, read in a thread and handed out one by one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp


class StreamClosed(RuntimeError):
    """The server closed the websocket."""


@dataclass(frozen=True)
class Message:
    """A JSON message as dict, a binary one as bytes; `at` is when it came, on time.monotonic's clock."""

    content: dict[str, Any] | bytes
    at: float


class EventStream:
    """A context manager that is connected when entered."""

    def __init__(self, url: str, client_id: str) -> None:
        self._address = f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        self._messages: queue.Queue[Message | Exception] = queue.Queue()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="comfy-events", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> EventStream:
        self._thread.start()
        self._connected.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def get(self, timeout: float) -> Message | None:
        """The next message; None when there is none within `timeout` seconds. Raises StreamClosed after the last."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(message, Exception):
            self._messages.put(message)  # so will every later call
            raise StreamClosed(f"the connection to the server ended: {message}") from message
        return message

    def _run(self) -> None:
        try:
            self._task = self._loop.create_task(self._listen())
            self._loop.run_until_complete(self._task)
            self._messages.put(StreamClosed("closed by the server"))
        except asyncio.CancelledError:
            self._messages.put(StreamClosed("closed by us"))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._messages.put(error)
        finally:
            self._connected.set()
            self._loop.close()

    async def _listen(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._address, max_msg_size=0) as socket,
        ):
            self._connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._messages.put(Message(json.loads(message.data), time.monotonic()))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self._messages.put(Message(message.data, time.monotonic()))
