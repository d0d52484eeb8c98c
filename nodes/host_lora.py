"""Style LoRAs in the forward pass: no weight of the model is patched, and none needs restoring."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from comfy.weight_adapter.bypass import BypassForwardHook
from torch import Tensor, nn

from ..diffstyler_core.lora_file import load_lora
from ..diffstyler_core.lora_schedule import Lora

log = logging.getLogger(__name__)

Forward = Callable[..., Tensor]

NO_LORA = "none"
PREFIX = "diffusion_model."


def lora_names() -> list[str]:
    """The files of models/loras that this pack opens: safetensors only."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(".safetensors")]


def lora_from_file(name: str) -> Lora:
    """The LoRA of a file in models/loras. Raises ValueError for another type, a missing or an unreadable file."""
    if not name.endswith(".safetensors"):
        raise ValueError(f"lora_name must be a .safetensors file, got {name!r}: convert it first.")
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise ValueError(f"lora_name: there is no {name!r} in models/loras; refresh the list and choose another.")
    try:
        return load_lora(Path(path))[0]
    except Exception as error:
        raise ValueError(
            f"lora_name: {name!r} cannot be read as safetensors ({error}). Train or fetch it again."
        ) from error


class ForwardLora:
    """A LoRA on one model at one strength, applied as ``g(f(x) + strength * h(x))`` by the host's own adapters."""

    def __init__(self, model: ModelPatcher, lora: Lora, strength: float, name: str = "the style LoRA") -> None:
        key_map = comfy.lora.model_lora_keys_unet(model.model, {})
        state = comfy.lora_convert.convert_lora(dict(lora))
        loaded = comfy.lora.load_lora(state, key_map, log_missing=False)
        self._adapters = {key.removesuffix(".weight"): patch for key, patch in loaded.items()}
        self.notes: tuple[str, ...] = ()
        self._resident: dict[str, WeightAdapterBase] = {}
        self._strength = strength
        self._check(model, lora, name)

    def _check(self, model: ModelPatcher, lora: Lora, name: str) -> None:
        if not self._adapters:
            sample = next(iter(lora), "no keys at all")
            raise ValueError(
                f"{name} matches 0 layers of this model: it was trained for another kind of model, or its keys "
                f"({len(lora)}, such as {sample!r}) are of an unknown form. Use a LoRA of this model's family."
            )
        for key, adapter in self._adapters.items():
            if not isinstance(adapter, WeightAdapterBase) or not key.startswith(PREFIX):
                raise ValueError(
                    f"{name} changes {key!r} in a way that cannot run in the forward pass ({type(adapter).__name__}). "
                    "Apply it with Load LoRA before this node instead."
                )
            weights = adapter.weights if isinstance(adapter.weights, (list, tuple)) else ()
            if adapter.name == "lora" and len(weights) > 4 and weights[4] is not None:
                raise ValueError(f"{name} is a DoRA, which needs the base weights: apply it with Load LoRA instead.")
            if adapter.name == "lora":
                self._check_shape(model, key, weights, name)

    @staticmethod
    def _check_shape(model: ModelPatcher, key: str, weights: tuple | list, name: str) -> None:
        weight = comfy.utils.get_attr(model.model, f"{key}.weight")
        if weights[0].shape[0] != weight.shape[0] or weights[1].flatten(1).shape[1] != weight.flatten(1).shape[1]:
            raise ValueError(
                f"{name} does not fit this model: {key} is {tuple(weight.shape)}, the LoRA was trained for "
                f"[{weights[0].shape[0]}, {weights[1].flatten(1).shape[1]}]. Use a LoRA of this model's family."
            )

    def at(self, strength: float) -> ForwardLora:
        """The same LoRA at another strength; the weights are shared."""
        other = copy.copy(self)
        other._strength = strength
        return other

    def release(self) -> None:
        """Forgets the copies of the weights on the computing device, at every strength."""
        self._resident.clear()

    @property
    def layers(self) -> frozenset[str]:
        """Paths of the layers in the UNet that it acts on."""
        return frozenset(key.removeprefix(PREFIX) for key in self._adapters)

    def forward_of(self, module: nn.Module, layer: str) -> Forward:
        """A forward of ``module`` with this LoRA around the one that it has now. The module itself stays as it is."""
        moved = self._resident.get(layer, self._adapters[PREFIX + layer])
        adapter = copy.copy(moved)  # the hook writes its strength and its place on it
        with _forward_kept(module):
            hook = BypassForwardHook(module, adapter, self._strength)
            hook.inject()  # also moves the adapter to the computing device
            self._resident[layer] = adapter
            return module.forward


@contextmanager
def _forward_kept(module: nn.Module) -> Iterator[None]:
    """Puts a module's forward back, whether it is the class's own or an instance attribute."""
    own = module.__dict__.get("forward")
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)
        if own is not None:
            module.__dict__["forward"] = own


@contextmanager
def loras_applied(unet: UNetModel, loras: Sequence[ForwardLora | None]) -> Iterator[None]:
    """The UNet runs with loras[i] on the i-th of as many equal chunks of its batch, and is as it was afterwards."""
    acting = {id(lora): lora for lora in loras if lora is not None}
    with ExitStack() as stack:
        for layer in sorted(frozenset().union(*(lora.layers for lora in acting.values()))):
            module = unet.get_submodule(layer)
            forwards: dict[int, Forward] = {
                key: lora.forward_of(module, layer) for key, lora in acting.items() if layer in lora.layers
            }
            chunks = [forwards.get(id(lora), module.forward) for lora in loras]
            stack.enter_context(_forward_kept(module))
            module.forward = _by_chunk(chunks)
        yield


def _by_chunk(forwards: Sequence[Forward]) -> Forward:
    """One forward for a batch of equal chunks; neighbours with the same forward run together."""
    runs = [(forward, len(list(group))) for forward, group in groupby(forwards)]
    if len(runs) == 1:
        return runs[0][0]

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        size, odd = divmod(x.shape[0], len(forwards))
        if odd:
            raise RuntimeError(f"a batch of {x.shape[0]} rows cannot be shared by {len(forwards)} prompts of one size.")
        parts = x.split([size * count for _, count in runs])
        return torch.cat([f(part, *args, **kwargs) for (f, _), part in zip(runs, parts, strict=True)])

    return forward
