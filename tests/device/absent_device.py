"""A CUDA device that is not there: devices, number formats, shapes and copies are exact, nothing is computed on it.

Its tensors are PyTorch's fake ones, so an operation over tensors of two devices is refused as a GPU refuses it. What
is known of their values is kept beside them: noise levels, masks and whatever else began as numbers on the CPU are
followed through every operation, as running code asks for them. What began without values (weights) has none, and a
question that depends on them is an error, but for these: it is finite, it is not all zero, and a loss is 1.
Speed, rounding and NaN are not seen; of the device's memory what tensors take (``live``) is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from live_bytes import LiveBytes
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
FOLLOWED = 1 << 22
"""Numbers of a tensor whose values are followed at most."""
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product")
READS = ("_local_scalar_dense", "item", "is_nonzero")
OF_VALUES = ("index", "nonzero", "masked_select")
OF_SHAPES = ("new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like")
"""Operators that take no more than shape, format and device of their first tensor."""
VIEWS = ("_unsafe_view", "_reshape_alias", "detach", "lift_fresh")
"""Operators that compute nothing, beside those that PyTorch marks as views."""
WITHOUT_VALUES = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


@contextmanager
def absent_device() -> Iterator[AbsentDevice]:
    """In here tensors may be made on, moved to and computed on a CUDA device."""
    apply, nn.Module._apply = nn.Module._apply, _moved
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), AbsentDevice() as device:
            yield device
    finally:
        nn.Module._apply = apply


class AbsentDevice(TorchDispatchMode):
    """Lies over a FakeTensorMode and follows values. seen: what happened since it was set. live: its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self.live = LiveBytes()
        self._values = WeakTensorKeyDictionary()
        self._spoiled: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").split(".")[0]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in given:
            if isinstance(tensor, FakeTensor):
                tensor.constant = None  # or PyTorch would compute with it, on the device
        if name in READS:
            return self._asked(args[0])
        if not self._needs_fake(name, given, kwargs):
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)
        if _made_of_others(func):  # as the host's inference mode leaves them
            with self:
                return func.decompose(*args, **kwargs)
        if name in OF_VALUES and all(self._value(tensor) is not None for tensor in given):
            return self._shaped_by_values(func, args, given)
        out = func(*args, **kwargs)
        self.live.note(out)
        self.seen.note(func, name, given, args, kwargs, out)
        return self._with_values(func, name, given, args, kwargs, out)

    def _needs_fake(self, name: str, given: list[Tensor], kwargs: Any) -> bool:
        """Whether a fake tensor takes part, the device is asked for, or what is made begins without values."""
        device = kwargs.get("device")
        on_device = device is not None and torch.device(device).type == "cuda"
        return on_device or name in WITHOUT_VALUES or any(isinstance(tensor, FakeTensor) for tensor in given)

    def _asked(self, tensor: Tensor) -> Any:
        """A number that running code reads from a tensor. On a GPU it waits for it."""
        if tensor.device.type == "cuda":
            self.seen.waits += 1
        value = self._value(tensor)
        if value is not None:
            with torch._C._DisableTorchDispatch():
                return value.item()
        if tensor.dtype.is_floating_point:
            return 1.0
        raise RuntimeError(f"a decision depends on values that are not there: {tensor}")

    def _value(self, tensor: Tensor) -> Tensor | None:
        if not isinstance(tensor, FakeTensor):
            return tensor
        value = self._values.get(tensor)
        return None if value is None or value.untyped_storage().data_ptr() in self._spoiled else value

    def _with_values(self, func: Any, name: str, given: list[Tensor], args: Any, kwargs: Any, out: Any) -> Any:
        """The output with its values beside it where they are known; a real tensor where those come to the CPU."""
        if name in OF_SHAPES and self._value(args[0]) is None:
            with torch._C._DisableTorchDispatch():
                args = torch.zeros((), dtype=args[0].dtype).expand(args[0].shape), *args[1:]
            given = [args[0]]
        written = [leaf for leaf in tree_leaves(_written(func, args)) if isinstance(leaf, Tensor)]
        if not self._followed(name, given, out):
            self._spoil(written)
            return self._supposed(name, args, out)
        here = {**kwargs, **({"device": CPU} if kwargs.get("device") is not None else {})}
        with torch._C._DisableTorchDispatch():
            real = func(*tree_map(self._plain, args), **tree_map(self._plain, here))
        return tree_map(self._kept, out, real)

    def _shaped_by_values(self, func: Any, args: Any, given: list[Tensor]) -> Tensor:
        """An output whose shape depends on values. A GPU waits for those as well."""
        device = given[0].device
        self.seen.waits += device.type == "cuda"
        with torch._C._DisableTorchDispatch():
            real = func(*tree_map(self._plain, args))
        return self._kept(torch.empty(real.shape, dtype=real.dtype, device=device), real)

    def _plain(self, value: Any) -> Any:
        return self._value(value) if isinstance(value, Tensor) else value

    def _followed(self, name: str, given: list[Tensor], out: Any) -> bool:
        """Whether the values of an output are known: they began on the CPU, and are not too many."""
        if name in WITHOUT_VALUES or any(self._value(tensor) is None for tensor in given):
            return False
        outs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        return bool(outs) and all(tensor.numel() <= FOLLOWED for tensor in outs)

    def _kept(self, out: Any, real: Any) -> Any:
        if not isinstance(out, Tensor):
            return out
        if out.device.type == "cpu":
            return real
        self._values[out] = real
        return out

    def _spoil(self, written: list[Tensor]) -> None:
        """What is written into a tensor is not known: neither are the values of its views and bases any more."""
        for tensor in written:
            if not isinstance(tensor, FakeTensor):
                raise RuntimeError("values that are not there are written into a tensor of the CPU")
            value = self._values.pop(tensor, None)
            if value is not None:
                self._spoiled[value.untyped_storage().data_ptr()] = value

    def _supposed(self, name: str, args: Any, out: Any) -> Any:
        """Of what has no values: x == x and |x| != inf, of which ``isfinite`` is made, and that not all of it is 0."""
        finite = len(args) > 1 and ((name == "eq" and args[0] is args[1]) or (name == "ne" and args[1] == float("inf")))
        if finite or name in ("any", "count_nonzero"):
            with torch._C._DisableTorchDispatch():
                self._values[out] = torch.ones((), dtype=out.dtype).expand(out.shape)
        return out


class Seen:
    """What happened on and around the device.

    moved: bytes that crossed, as (from, to). products: how many matrix products, convolutions and attentions were of
    each set of number formats. wide: shapes of the operands of those that have fp32 among theirs. widest: the most
    numbers that a new fp32 tensor on the device had. waits: numbers read back. calls: operators by name, kernels: how
    many of their calls a GPU computes or copies something for, views not. flops: of the products.
    """

    def __init__(self) -> None:
        self.moved: Counter[tuple[str, str]] = Counter()
        self.products: Counter[frozenset[torch.dtype]] = Counter()
        self.wide: list[tuple[tuple[int, ...], ...]] = []
        self.widest = 0
        self.waits = 0
        self.calls: Counter[str] = Counter()
        self.kernels = self.flops = 0

    def note(self, func: Any, name: str, given: list[Tensor], args: Any, kwargs: Any, out: Any) -> None:
        """One operation that a tensor of the device took part in."""
        if func.namespace == "aten":
            self.calls[name] += 1
            self.kernels += not func.is_view and name not in (*VIEWS, *WITHOUT_VALUES)
        count = flop_registry.get(getattr(torch.ops.aten, name.rstrip("_"), None))  # of addmm_ as of addmm
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        if name == "_to_copy" and args[0].device != out.device:
            self.moved[args[0].device.type, out.device.type] += out.nbytes
        if name == "copy_" and args[0].device != args[1].device:
            self.moved[args[1].device.type, args[0].device.type] += args[1].nbytes
        if name.startswith(PRODUCTS):
            self.products[frozenset(x.dtype for x in given)] += 1
            if any(x.dtype == torch.float32 for x in given):
                self.wide.append(tuple(tuple(x.shape) for x in given))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.dtype == torch.float32 and made.device.type == "cuda":
                self.widest = max(self.widest, made.numel())


def _written(func: Any, args: Any) -> list[Any]:
    """The arguments that an operation changes in place."""
    return [
        arg for arg, of in zip(args, func._schema.arguments, strict=False) if of.alias_info and of.alias_info.is_write
    ]


@cache
def _made_of_others(func: Any) -> bool:
    return func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )


def _moved(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``nn.Module._apply`` with new parameters in the place of the old: fake ones cannot be changed into each other."""
    for child in module.children() if recurse else ():
        child._apply(change)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(change(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def gradients(loss: Tensor) -> None:
    """``backward`` without values: every leaf that the loss depends on gets a gradient of its own form.

    The backward pass itself is not run: PyTorch's engine for it asks the driver for the device.
    """
    waiting, known = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaf.grad = torch.empty_like(leaf)
        waiting += [following for following, _ in node.next_functions]
