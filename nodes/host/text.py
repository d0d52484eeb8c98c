"""Words and a picture on a node: the words live while it works, both kept with its result.

The words of a working node are a message of our own, drawn by web/diffstyler_text.js: the host's progress text breaks
lines inside words in one of its two renderings, loses line breaks in the other, and is not cleared after Cancel.
"""

from __future__ import annotations

import math
import time

from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from server import PromptServer
from torch import Tensor

MESSAGE = "diffstyler.words"


def say(at: str, *more: str, kept: str = "nothing saved") -> None:
    """Shows words on the node that is running. Without a page that watches (the pack used in process) nothing happens.

    at: where the work is, as in 'step 9 of 40'. kept: what is left of it when it is cancelled now.
    """
    server, running = getattr(PromptServer, "instance", None), get_executing_context()
    if server is None or server.client_id is None or running is None:
        return
    words = {"node": running.node_id, "text": ", ".join((at, *more)), "cancelled": f"cancelled at {at}, {kept}"}
    server.send_sync(MESSAGE, words, server.client_id)


class Counter:
    """Says how far a loop is: 'step 9 of 40, 12 s left'. The time left is counted from when this was made.

    name: what is counted. kept: as in ``say``.
    """

    def __init__(self, name: str = "step", kept: str = "nothing saved") -> None:
        self._name, self._kept, self._start = name, kept, time.monotonic()

    def __call__(self, done: int, total: int, *more: str) -> None:
        spent = time.monotonic() - self._start
        left = [f"{duration(spent / done * (total - done))} left"] if done else []
        say(f"{self._name} {done} of {total}", *more, *left, kept=self._kept)


def duration(seconds: float) -> str:
    """Seconds in words: '45 s', '3 min 10 s'."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def output(*values: object, text: str, picture: Tensor | None = None) -> io.NodeOutput:
    """A node's outputs with the text, and a picture [1, H, W, 3], that stay on it and in the history."""
    shown = ui.PreviewText(text).as_dict()
    if picture is not None:
        shown |= ui.PreviewImage(picture).as_dict()
    return io.NodeOutput(*values, ui=shown)
