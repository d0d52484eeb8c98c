"""Forwards of layers put in place of their own for as long as a block is open, and taken away after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

Forward = Callable[..., Tensor]


def own_forward(module: nn.Module) -> Forward | None:
    """The forward that stands on the module itself (another pack's), None where it is its class's."""
    own: Forward | None = module.__dict__.get("forward")
    return own


@contextmanager
def forwards_on(forwards: Iterable[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Each module runs with the forward beside it; afterwards with what it had, its class's or its own."""
    before: list[tuple[nn.Module, Forward | None]] = []
    try:
        for module, forward in forwards:
            before.append((module, own_forward(module)))
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, own in reversed(before):
            _put_back(module, own)


@contextmanager
def forward_kept(module: nn.Module) -> Iterator[None]:
    """Puts a module's forward back, whatever is done to it inside."""
    own = own_forward(module)
    try:
        yield
    finally:
        _put_back(module, own)


def _put_back(module: nn.Module, own: Forward | None) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = own
