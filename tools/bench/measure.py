"""Two ways to do one job in turns: wall time, CPU time and what was counted of each."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

Work = Callable[[], Any]
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Compared(NamedTuple):
    """One comparison. peer: what it is held against. steps: of each run, for figures a step. bar: of the ratio."""

    name: str
    peer: str
    ours: Work
    theirs: Work
    steps: int
    bar: float | None = None


class Spent(NamedTuple):
    """Seconds of one run. cpu: of this process's threads; other programs on the machine hardly touch it."""

    wall: float
    cpu: float


def spent(work: Work) -> Spent:
    """One run, the device's work included."""
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Figure(NamedTuple):
    """A median with the lowest and the highest of the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values))


def in_turns(ours: Work, theirs: Work, repeats: int, warm: bool = True) -> list[tuple[Spent, Spent]]:
    """Both, A B A B .., after one unmeasured run of each."""
    if warm:
        ours(), theirs()
    return [(spent(ours), spent(theirs)) for _ in range(repeats)]


def ratios(pairs: list[tuple[Spent, Spent]]) -> dict[str, Any]:
    """Medians of both sides' seconds and of the paired ratios: of wall time, and of CPU time."""
    return {
        "ours_s": statistics.median(a.wall for a, _ in pairs),
        "peer_s": statistics.median(b.wall for _, b in pairs),
        "ratio": Figure.of([a.wall / b.wall for a, b in pairs])._asdict(),
        "cpu_ratio": Figure.of([a.cpu / b.cpu for a, b in pairs])._asdict(),
        "repeats": len(pairs),
    }


def row_of(compared: Compared, model: Any, repeats: int) -> dict[str, Any]:
    """The comparison's row of results.json: times, and what one run of each takes of the UNet and of the machine."""
    counts = counted(compared.ours, model), counted(compared.theirs, model)  # the warm-up of both
    pairs = in_turns(compared.ours, compared.theirs, repeats, warm=False)
    steps = compared.steps
    return {
        "name": compared.name,
        "peer": compared.peer,
        "steps": steps,
        "bar": compared.bar,
        **ratios(pairs),
        "ours": counts[0].a_step(steps),
        "peer_counts": counts[1].a_step(steps),
    }


class Counts(TorchDispatchMode):
    """Counts of one run: rows that the UNet was given, operator calls, and multiplications with additions (FLOPs)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.calls: Counter[str] = Counter()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode an operator that is made of others arrives whole
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        out = func(*args, **(kwargs or {}))
        if any(isinstance(part, torch.Tensor) for part in tree_leaves(out)) and not _is_view(func):
            self.calls[str(func.overloadpacket)] += 1
        if func.overloadpacket in flop_registry:
            self.flops += int(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out))
        elif func.overloadpacket is FLASH:
            self.flops += sdpa_flop_count(*(x.shape for x in args[:3]))
        return out

    def a_step(self, steps: int) -> dict[str, float]:
        """The counts of one of so many steps."""
        called = sum(self.calls.values())
        return {
            "unet_rows": round(self.rows / steps, 2),
            "operator_calls": round(called / steps, 1),
            "gflop": round(self.flops / 1e9 / steps, 3),
        }


def _is_view(func: Any) -> bool:
    """A new look at the same memory: nothing is launched on a device."""
    return bool(func.is_view)


def counted(work: Work, model: Any) -> Counts:
    """One run of the work, counted."""
    counts = Counts()
    with heard(model, counts), counts:
        work()
    return counts


@contextmanager
def heard(model: Any, counts: Counts) -> Iterator[None]:
    """The rows of every evaluation of a MODEL's UNet are counted while this is open."""

    def count(module: Any, args: tuple[Any, ...]) -> None:
        counts.rows += len(args[0])

    handle = model.model.diffusion_model.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()
