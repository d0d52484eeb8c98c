"""Nodes that look at the MODEL, the machine and the versions, and at what a capture takes."""

from __future__ import annotations

import gc
import importlib
import platform
import sys
from typing import Any

import comfy.memory_management
import comfy.model_management as management
import torch
from comfy.comfy_types import IO
from comfy.ldm.modules.attention import optimized_attention
from comfyui_version import __version__

from .latents import digest_of
from .told import told


def pack(room: str) -> Any:
    """A module of the pack, as this server loaded it: ``pack("nodes.host.model")``."""
    entry = sys.modules["nodes"].NODE_CLASS_MAPPINGS["DiffStyler_DDIMInvert"].__module__
    return importlib.import_module(f"{entry.rsplit('.nodes.', 1)[0]}.{room}")


class Facts:
    """What the pack sees in a checkpoint, and the machine it runs on.

    halved: for pictures of half the model's side.
    Raises ValueError for a checkpoint that the pack does not take, or that lacks a text encoder or a VAE.
    """

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        checkpoint = {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}
        settings = {"steps": ("INT", {"default": 50}), "halved": ("BOOLEAN", {"default": False})}
        return {"required": {**checkpoint, **settings}}

    def run(self, model: Any, clip: Any, vae: Any, steps: int, halved: bool) -> dict[str, Any]:
        return told(**_model_facts(model, clip, vae, steps, halved), **_machine_facts(), **_versions())


class CaptureSize:
    """What a capture takes, and what the pack says beforehand that it takes, in bytes."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        wires = {"model": ("MODEL",), "source": ("CONDITIONING",), "latent": ("LATENT",)}
        return {"required": {**wires, "features": ("DIFFSTYLER_FEATURES",), "bits": ("INT", {"default": 16})}}

    def run(self, model: Any, source: Any, latent: Any, features: Any, bits: int) -> dict[str, Any]:
        dtype = torch.float32 if bits == 32 else torch.float16
        needed = pack("nodes.host.sampling.capture").bytes_needed
        expected = needed(model, features.request, latent["samples"], source, dtype)
        return told(taken=features.store.nbytes, expected=expected, steps=features.request.steps())


class Held:
    """Bytes of all tensors alive in the server, and of what torch holds on the GPU, after a garbage collection.

    after: what has to be made before.
    """

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"after": (IO.ANY, {})}}

    def run(self, after: Any) -> dict[str, Any]:
        gc.collect()
        sizes = {}
        for one in gc.get_objects():
            if issubclass(type(one), torch.Tensor) and one.layout == torch.strided and not _is_stand_in(one):
                storage = one.untyped_storage()
                sizes[storage._cdata] = storage.nbytes()
        gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        return told(tensors=sum(sizes.values()), gpu=gpu)


class State:
    """What a run might leave behind on a MODEL: other weights, hooks, replaced forwards, patches, wrappers.

    after: what has to be made before, for instance the MODEL's own picture, so that its weights are the loaded ones.
    """

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "DiffStyler/verify", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "after": (IO.ANY, {})}}

    def run(self, model: Any, after: Any) -> dict[str, Any]:
        unet = model.model.diffusion_model
        wrappers = {kind: sum(map(len, keys.values())) for kind, keys in model.wrappers.items()}
        return told(
            weights=digest_of(list(unet.parameters())),
            left=[name for name, module in unet.named_modules() if _touched(module)],
            patches=len(model.patches), object_patches=sorted(model.object_patches), wrappers=wrappers,
            options=sorted(map(str, model.model_options.get("transformer_options", {}))),
        )  # fmt: skip


def _is_stand_in(tensor: torch.Tensor) -> bool:
    """Whether a tensor has no memory of its own."""
    return tensor.device.type == "meta" or isinstance(tensor, torch._subclasses.FakeTensor)


def _touched(module: torch.nn.Module) -> bool:
    hooked = bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)
    return hooked or "lora" in type(module).__name__.lower()


def _model_facts(model: Any, clip: Any, vae: Any, steps: int, halved: bool) -> dict[str, Any]:
    host, capture = pack("nodes.host.model"), pack("nodes.host.sampling.capture")
    host.require_compatible(model)
    family, side = host.family_of(model), host.native_side(model) // (2 if halved else 1)
    for part, name in ((clip, "text encoder"), (vae, "VAE")):
        if part is None:
            raise ValueError(f"this file holds no {name}: verify needs a whole checkpoint, with UNet, CLIP and VAE.")
    weights, cast = model.model.get_dtype(), model.get_model_object("manual_cast_dtype")
    content = torch.zeros(1, model.model.latent_format.latent_channels, side // 8, side // 8)
    wanted = capture.Wanted("auto", "auto", "")
    requested = capture.request_for(model, content, wanted, steps, steps)
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    needed = capture.bytes_needed(model, requested.request, content, empty, torch.float16)
    return {
        "family": family, "prediction": host.prediction_of(model), "side": side, "demo": host.is_demo(model),
        "decoder_layers": len(host.unet_of(model).output_blocks), "weights": str(weights).removeprefix("torch."),
        "computes": str(cast or weights).removeprefix("torch."), "auto": "; ".join(requested.words),
        "capture_bytes": needed, "free_ram": management.get_free_memory(torch.device("cpu")),
        "last_sigma": float(model.get_model_object("model_sampling").sigmas[0]),
        "weight_bytes": sum(p.numel() * p.element_size() for p in model.model.diffusion_model.parameters()),
        "parameters": sum(p.numel() for p in model.model.diffusion_model.parameters()),
    }  # fmt: skip


def _machine_facts() -> dict[str, Any]:
    device, processor = management.get_torch_device(), torch.device("cpu")
    return {
        "device": management.get_torch_device_name(device), "attention": optimized_attention.__name__,
        "vram": None if device.type == "cpu" else management.get_total_memory(device),
        "ram": management.get_total_memory(processor), "threads": torch.get_num_threads(),
        "memory_mode": management.vram_state.name,
        "dynamic_vram": bool(getattr(comfy.memory_management, "aimdo_enabled", False)),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
    }  # fmt: skip


def _versions() -> dict[str, Any]:
    gpu = torch.version.cuda or torch.version.hip
    return {"comfyui": __version__, "torch": torch.__version__, "python": platform.python_version(), "cuda": gpu}
