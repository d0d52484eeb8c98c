"""How much memory a piece of work takes: the GPU's where there is one, else this process's."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time

import psutil
import torch


class PeakMemory:
    """The most bytes in use while open (``most``), and how much more that is than when it was opened (``grown``)."""

    def __init__(self) -> None:
        self.before = self.most = 0
        self._open = True
        self._process = psutil.Process()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        give_back()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.before = self.most = self._process.memory_info().rss
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        if torch.cuda.is_available():
            self.most = torch.cuda.max_memory_allocated()
        else:
            self._thread.join()

    @property
    def grown(self) -> int:
        return self.most - self.before

    def _watch(self) -> None:
        while self._open:
            self.most = max(self.most, self._process.memory_info().rss)
            time.sleep(0.005)


def give_back() -> None:
    """What is free in this process goes back to the system, as far as the C library knows how."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
