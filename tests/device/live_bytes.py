"""How much memory the tensors of a device take at once: each storage once, for as long as any tensor holds it."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes:
    """now: bytes of all storages that are alive. peak: the most since it was set (``restart``).

    What an operation takes inside of itself and gives back (a softmax's maps, cuDNN's workspaces) is not seen, nor what
    an allocator keeps in reserve.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def note(self, out: Any) -> None:
        """What an operation gave. Views are of a storage that is known."""
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.device.type == "cuda":
                self._add(made.untyped_storage())

    def restart(self) -> int:
        """Begins again to look for the peak; returns the bytes that are alive."""
        self.peak = self.now
        return self.now

    def _add(self, storage: Any) -> None:
        if storage not in self._known:
            nbytes = self._known[storage] = storage.nbytes()
            weakref.finalize(storage, self._gone, nbytes)
            self.now += nbytes
            self.peak = max(self.peak, self.now)

    def _gone(self, nbytes: int) -> None:
        self.now -= nbytes
