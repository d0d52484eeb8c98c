"""The messages of a ComfyUI websocket, handed out one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

Message = dict[str, Any]
Result = TypeVar("Result")


class StreamClosed(RuntimeError):
    """The server closed the websocket."""


class EventStream:
    """A context manager that is connected when entered. Its loop runs in a thread, and only while a call waits."""

    def __init__(self, url: str, client_id: str) -> None:
        self._address = f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1)
        self._open = AsyncExitStack()

    def __enter__(self) -> EventStream:
        try:
            self._socket = self._run(self._connect())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def get(self, timeout: float) -> Message | None:
        """The next message; None for a preview, and when nothing comes within `timeout` seconds.

        Raises StreamClosed after the last.
        """
        try:
            message = self._run(self._socket.receive(timeout))
        except asyncio.TimeoutError:
            return None
        if message.type == aiohttp.WSMsgType.TEXT:
            return dict(message.json())
        if message.type == aiohttp.WSMsgType.BINARY:
            return None
        raise StreamClosed(f"the connection to the server ended: {message.type.name} {message.data or ''}".rstrip())

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        session = await self._open.enter_async_context(aiohttp.ClientSession())
        return await self._open.enter_async_context(session.ws_connect(self._address, max_msg_size=0))

    def _close(self) -> None:
        try:
            self._run(self._open.aclose())
        finally:
            self._thread.shutdown()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._thread.submit(self._loop.run_until_complete, work).result()
