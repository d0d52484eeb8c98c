"""Reading a FastSAM file, which is a pickle, without running anything that it holds."""

from __future__ import annotations

import importlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from .weights import SOURCE

LAYERS = {
    "torch.nn.modules": "Sequential ModuleList Conv2d ConvTranspose2d BatchNorm2d SiLU ReLU LeakyReLU Identity "
    "MaxPool2d Upsample",
    "ultralytics.nn": "SegmentationModel Conv DWConv C2f C3 Bottleneck SPPF Concat Segment Detect DFL Proto",
}
"""The classes a FastSAM file (YOLOv8-seg) is made of, by where they may be named."""

TENSOR_PARTS = ("_rebuild_tensor_v2", "_rebuild_parameter")
NOTES = ("numpy.", "pathlib.", "_codecs.", "ultralytics.utils.", "ultralytics.yolo.utils.", "torch.nn.modules.loss.")
"""Training notes beside the network (scores, paths, settings, losses): read as Note, which does nothing."""


def read_network(path: Path) -> nn.Module:
    """The network of a FastSAM file, on the CPU. Call inside ``ultralytics_at_work``.

    These files are pickles of whole models. Only the classes in LAYERS are rebuilt, none of their constructors is
    run (ultralytics' evaluate text), and any other name in the file ends the reading.
    Raises ValueError for a file that is no such pickle or names anything else.
    """
    try:
        records = torch._C.PyTorchFileReader(str(path)).get_all_records()
        if "data.pkl" not in records or "constants.pkl" in records:  # the latter is TorchScript, which is a program
            raise ValueError("it is not a checkpoint that torch.save wrote")
        # A pickle module of our own is how torch.load takes a restricted unpickler; weights_only excludes one.
        reader: Any = SimpleNamespace(__name__=__name__, Unpickler=RestrictedUnpickler)
        checkpoint = torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
        network = checkpoint.get("ema") or checkpoint["model"]
        if type(network).__name__ != "SegmentationModel":
            raise ValueError(f"it holds a {type(network).__name__}, not a SegmentationModel")
        return network.float()
    except Exception as error:
        raise ValueError(
            f"fastsam_name: {path.name!r} cannot be read as FastSAM weights ({str(error) or type(error).__name__}). "
            f"Fetch it again from {SOURCE}."
        ) from error


class Note:
    """A training note of no use here: takes whatever the file gives it and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Maker:
    """A function that a file may call and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function: refused")


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows FastSAM's layers, tensors and plain containers, and nothing that acts."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("builtins", "__builtin__") and name in ("set", "getattr"):
            return set if name == "set" else Maker(method_note)
        if module == "torch" and (name in ("Size", "device") or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        if module == "torch._utils" and name in TENSOR_PARTS:
            return Maker(getattr(torch._utils, name))
        if any(f"{module}.".startswith(f"{home}.") and name in known.split() for home, known in LAYERS.items()):
            return blank(layer_class(module, name))
        if f"{module}.".startswith(NOTES):
            return Note
        raise pickle.UnpicklingError(f"it names {module}.{name}, which FastSAM weights do not hold: refused unread")


def layer_class(module: str, name: str) -> type[nn.Module]:
    """A class of LAYERS. Old files name ultralytics modules that have moved since, so the name alone decides."""
    homes = ("ultralytics.nn.tasks", "ultralytics.nn.modules") if module.startswith("ultralytics") else ("torch.nn",)
    for home in homes:
        found = getattr(importlib.import_module(home), name, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    raise pickle.UnpicklingError(f"the installed ultralytics has no {name}")


def blank(layer: type[nn.Module]) -> type:
    """A class whose instances are ``layer``'s, made without its constructor; arguments are refused."""

    class Blank:
        wanted = layer

        def __new__(cls) -> Any:
            return layer.__new__(layer)

    return Blank


def method_note(owner: Any, name: str) -> Note:
    """``getattr`` as these files use it: they keep ``Detect.forward``, which today's Segment does not read."""
    if getattr(owner, "wanted", None) is not layer_class("ultralytics", "Detect") or name != "forward":
        raise pickle.UnpicklingError(f"it asks for {name!r} of {owner!r}: refused")
    return Note()
