"""What stored captures hold at the noise levels of a run, on the computing device: each step is brought there once.

On the CPU nothing is copied; tensors of another number format than the model's are cast once a level. On a GPU all that
a level takes sets out when it begins, on a stream of the host's for weights beside the computing, which waits for it
where the first of it is used, in the decoder. Before that, while the level before is computed, a thread reads it from
disk and puts it into pinned memory, where the host pins its own weights.

A level takes one step, or the two that it lies between. A step stays on the device for as long as one level after the
other takes it, and goes with the first that does not. The host was asked for its room (``room.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import comfy.model_management as management
import torch
from torch import Tensor

from ....diffstyler_core.injection.ahead import ReadAhead, Reading
from ....diffstyler_core.injection.between import BetweenSteps, Held, Level, Used
from ....diffstyler_core.injection.blocks import Blocks, bytes_in_blocks, plain_room
from ....diffstyler_core.injection.sites import Site
from ....diffstyler_core.injection.taps import SiteTensors
from ..model import computing_dtype
from .branches import Content

log = logging.getLogger(__name__)


class Step(NamedTuple):
    """A captured step of a content."""

    content: Content
    step: int


Taken = frozenset[tuple[Site, frozenset[int]]]
"""Which tensors of which sites, as a key."""

Needs = Mapping[Step, Used]
"""Which tensors of which captured steps a noise level takes."""


class HeldSteps:
    """The captured steps of one run on its computing device. ``close`` leaves nothing there, and ends the thread.

    model: the host's BaseModel of the run.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self._dtype, self._device = computing_dtype(model), device
        self._pinning = management.is_device_cuda(device) and management.MAX_PINNED_MEMORY > 0
        self._ahead: ReadAhead[tuple[Step, Taken], dict[Site, SiteTensors]] = ReadAhead()
        self._there: dict[Step, tuple[dict[Site, SiteTensors], dict[Site, frozenset[int]]]] = {}
        self._stream: Any = None

    def go_to(self, needed: Needs, later: Needs) -> None:
        """Brings what a level needs, but for what the level before left there. The steps that it does not need go.

        later: what the run's next level needs, which is read ahead.
        """
        self._arrive()
        self._there = {step: held for step, held in self._there.items() if step in needed}
        lacking = self._lacking(needed)
        self._stream = self._side_stream() if lacking else None
        for step, used in lacking.items():
            read = self._ahead.take((step, frozenset(used.items())), self._reading(step, used))
            sent = {site: _each(tensors, used[site], self._sent) for site, tensors in read.items()}
            tensors, known = self._there.get(step, ({}, {}))
            self._there[step] = {**tensors, **sent}, {**known, **used}
        coming = self._lacking(later).items()
        readings = {(step, frozenset(used.items())): self._reading(step, used) for step, used in coming}
        self._ahead.expect({key: reading for key, reading in readings.items() if self._pinning or not _own(key[0])})

    def at(self, content: Content, level: Level, used: Used) -> Held:
        """What a content holds at the level that was gone to, in the number format that the model computes in."""
        nearest, _ = self._there.get(Step(content, level.step), ({}, {}))
        held: Held = nearest
        if level.beside is not None and Step(content, level.beside) in self._there:
            held = BetweenSteps(nearest, self._there[Step(content, level.beside)][0], level.share, used)
        return _InFormat(held, used, self._dtype, self._arrive)

    def close(self) -> None:
        """Forgets everything and ends the thread."""
        self._arrive()
        self._there = {}
        self._ahead.close()

    def _lacking(self, needs: Needs) -> dict[Step, dict[Site, frozenset[int]]]:
        """What of all that is not there."""
        lacking = {}
        for step, used in needs.items():
            _, known = self._there.get(step, ({}, {}))
            missing = {site: which for site, which in used.items() if not which <= known.get(site, frozenset())}
            if missing:
                lacking[step] = missing
        return lacking

    def _reading(self, step: Step, used: Used) -> Reading[dict[Site, SiteTensors]]:
        sizes = step.content.capture.sizes_at(step.step, used)
        return Reading(bytes_in_blocks(sizes) if self._pinning else sum(sizes), partial(self._read, step, used))

    def _read(self, step: Step, used: Used) -> dict[Site, SiteTensors]:
        """From disk or memory; in the thread, where it is read ahead."""
        capture = step.content.capture
        return capture.at(step.step, used, Blocks(self._pinned) if self._pinning else None)

    def _pinned(self, nbytes: int) -> Tensor:
        """Memory that the device reads by itself; other, where the system gives none."""
        if self._pinning:
            try:
                return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                log.warning("captured features are copied from memory that is not pinned: %s", error)
                self._pinning = False
        return plain_room(nbytes)

    def _side_stream(self) -> Any:
        """The host's for weights, None where it uses none. What is copied on it may overwrite freed memory of the
        computing, which therefore comes first."""
        stream = management.get_offload_stream(self._device) if self._pinning else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self._device))
        return stream

    def _sent(self, tensor: Tensor) -> Tensor:
        """On the device or on its way there. Its memory is the computing's own."""
        if tensor.device == self._device:
            return tensor
        there = torch.empty_like(tensor, device=self._device)
        return management.cast_to(
            tensor,
            device=self._device,
            non_blocking=management.device_supports_non_blocking(self._device),
            stream=self._stream,
            r=there,
        )

    def _arrive(self) -> None:
        """From here on the computing waits for what is on its way."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            self._stream = None


class _InFormat(Mapping[Site, SiteTensors]):
    """The sites that are used, in a number format; each is made once, when it is first asked for."""

    def __init__(self, held: Held, used: Used, dtype: torch.dtype, arrive: Callable[[], None]) -> None:
        self._held, self._used = held, {site: which for site, which in used.items() if site in held}
        self._dtype, self._arrive = dtype, arrive
        self._made: dict[Site, SiteTensors] = {}

    def __getitem__(self, site: Site) -> SiteTensors:
        if site not in self._made:
            self._arrive()
            self._made[site] = _each(self._held[site], self._used[site], lambda tensor: tensor.to(self._dtype))
        return self._made[site]

    def __contains__(self, site: object) -> bool:
        return site in self._used

    def __iter__(self) -> Iterator[Site]:
        return iter(self._used)

    def __len__(self) -> int:
        return len(self._used)


def _own(step: Step) -> bool:
    store = step.content.capture.store
    return store is not None and store.in_memory


def _each(tensors: SiteTensors, which: frozenset[int], change: Callable[[Tensor], Tensor]) -> SiteTensors:
    """Those of them that are used, changed; the others as they are."""
    return tuple(change(tensor) if i in which else tensor for i, tensor in enumerate(tensors))
