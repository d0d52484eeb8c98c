"""The content's own run, captured: which sites of which steps, and where they are kept (method.md section 3)."""

from __future__ import annotations

import math
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import comfy.memory_management
import comfy.model_management
import folder_paths
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....diffstyler_core.diffusion.ddim import Denoiser, OnStep
from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.injection.auto import ALL, AUTO, auto_layers, fine_layers, texture_layers
from ....diffstyler_core.injection.capture import CaptureRequest, flatten
from ....diffstyler_core.injection.disk import DiskStore
from ....diffstyler_core.injection.keeper import Keeper, require_finite
from ....diffstyler_core.injection.sites import Kind, Site, parse_layers
from ....diffstyler_core.injection.store import FrameStores, MemoryStore, Storage
from ....diffstyler_core.injection.taps import Recorder, SiteTensors, held_at
from ..checks.conditioning import Conditioning
from ..lora.run import LoraRun
from ..model import is_demo, layout_of, unet_of
from .forward import Acting
from .runs import Run, SourceGuider, denoise_content, run_guider, to_exploding

Store = MemoryStore | DiskStore | FrameStores
Keep = Callable[[Iterator[SiteTensors]], Store]
INSTEAD: dict[Storage, str] = {
    "memory": "Choose disk (temporary files) or recompute (stores nothing)",
    "disk": "Free some space, choose recompute (stores nothing)",
}


class Wanted(NamedTuple):
    """Which layers are asked for, as people write them: a list like 4-11, 'all', 'auto', or empty for none."""

    feature: str
    self_attention: str
    cross_attention: str


class Requested(NamedTuple):
    """A request, and how layers that were left to it were chosen, in words."""

    request: CaptureRequest
    words: tuple[str, ...]


def request_for(
    model: ModelPatcher, content: Tensor, wanted: Wanted, feature_steps: int, attention_steps: int, values: bool = False
) -> Requested:
    """The request that layers and numbers of steps stand for. content: the latent [1, C, h, w] that is captured.

    'auto' is what the paper's layers are on this UNet at this size; on the small demo checkpoint what measures best
    there; of a style's own picture (``values``) the finer self-attention, which Training-free Style takes. Raises
    ValueError for layers that this UNet has not.
    """
    layout = layout_of(model)
    choose = texture_layers if is_demo(model) else auto_layers
    auto = choose(layout, *content.shape[-2:])
    if values:
        auto = auto._replace(feature=(), self_attention=fine_layers(layout))
    kinds: dict[Kind, tuple[str, str, tuple[int, ...]]] = {
        "feature": (wanted.feature, "feature_layers", auto.feature),
        "self-attention": (wanted.self_attention, "self_attention_layers", auto.self_attention),
        "cross-attention": (wanted.cross_attention, "cross_attention_layers", auto.self_attention),
    }
    sites = {}
    for kind, (text, name, chosen) in kinds.items():
        sites[kind] = layout.sites(kind, _layers(text, name, chosen, layout.layers(kind)))
    attention = sites["self-attention"] + sites["cross-attention"]
    words = (str(auto),) if AUTO in (text.strip() for text in wanted) else ()
    return Requested(CaptureRequest(sites["feature"], attention, feature_steps, attention_steps, values), words)


def _layers(text: str, name: str, auto: tuple[int, ...], known: tuple[int, ...]) -> tuple[int, ...]:
    named = {AUTO: auto, ALL: known}.get(text.strip())
    return parse_layers(text, name) if named is None else named


class CaptureRun:
    """The content's own run over the steps that have anything to take: one UNet evaluation each, at (z_t, t).

    A core loop for ``run_guider``; ``store`` is where the steps are kept, once it has run.
    """

    store: Store

    def __init__(
        self, guider: SourceGuider, trajectory: Trajectory, lora: LoraRun, request: CaptureRequest, keeper: Keeper
    ) -> None:
        self._guider, self._trajectory, self._lora = guider, trajectory, lora
        self._request, self._keeper = request, keeper

    def into(self, keep: Keep) -> Run:
        """The loop that hands the steps to ``keep``, which says where they are."""

        def run(denoise: Denoiser, x: Tensor, on_step: OnStep) -> Tensor:
            self.store = keep(self._steps(denoise, x, on_step))
            return x

        return run

    def _steps(self, denoise: Denoiser, x: Tensor, on_step: OnStep) -> Iterator[SiteTensors]:
        steps = self._request.steps()
        for step in range(steps):
            sites = self._request.sites_at(step)
            recorder = Recorder(frozenset(sites), self._keeper, self._request.values)
            self._guider.acting = Acting(self._lora.at(step), recorder)
            x0 = denoise_content(denoise, self._trajectory, step, x)
            require_finite(step, recorder.taken)
            yield flatten(recorder.taken, sites)
            on_step(step, steps, x0)


def captured(
    model: ModelPatcher,
    trajectory: Trajectory,
    conditioning: Conditioning,
    lora: LoraRun,
    request: CaptureRequest,
    keeper: Keeper,
    keep: Keep,
    name: str = "step",
) -> Store:
    """What the contents' own run holds at the sites of the request, kept.

    keeper: how a tensor is kept. keep: where the steps are. name: of a step, on the node. Raises ValueError when the
    UNet gives NaN or Inf, and when the steps do not fit where they are kept.
    """
    guider = SourceGuider(model)
    guider.set_source(conditioning)
    capture, schedule = CaptureRun(guider, trajectory, lora, request, keeper), trajectory.schedule
    run_guider(guider, to_exploding(trajectory.noise, schedule), capture.into(keep), schedule, request.steps(), name)
    return capture.store


def bytes_needed(
    model: ModelPatcher, request: CaptureRequest, content: Tensor, conditioning: Conditioning, dtype: torch.dtype
) -> int:
    """What a capture of contents [B, C, h, w] takes in all its steps, in bytes, exactly."""
    numbers = numbers_at(model, (*request.feature_sites, *request.attention_sites), content, conditioning)
    sites = (site for step in range(request.steps()) for site in request.sites_at(step))
    return sum(sum(numbers[site][: held_at(site, request.values)]) for site in sites) * dtype.itemsize


def numbers_at(
    model: ModelPatcher, sites: Iterable[Site], content: Tensor, conditioning: Conditioning
) -> dict[Site, tuple[int, ...]]:
    """By site, how many numbers its tensors have for contents [B, C, h, w]: (hidden,) or (q, k, v)."""
    unet, strides = unet_of(model), layout_of(model).strides
    frames, _, *size = content.shape
    tokens = int(conditioning[0][0].shape[1])
    numbers: dict[Site, tuple[int, ...]] = {}
    for site in sites:
        cells = frames * math.prod(-(-side // strides[site.layer]) for side in size)
        if site.kind == "feature":
            numbers[site] = (cells * unet.output_blocks[site.layer][0].out_channels,)
            continue
        attention = next(m for m in unet.output_blocks[site.layer] if isinstance(m, SpatialTransformer))
        block = attention.transformer_blocks[site.depth]
        own = site.kind == "self-attention"
        width = (block.attn1 if own else block.attn2).to_q.weight.shape[0]
        keys = cells if own else frames * tokens
        numbers[site] = width * cells, width * keys, width * keys
    return numbers


def require_room(storage: Storage, needed: int, frames: int, wide: bool) -> None:
    """Raises ValueError when a capture does not fit where it is to be kept, before anything is evaluated.

    wide: whether a shorter number format would help.
    """
    room = room_in_memory(needed) if storage == "memory" else room_on_disk(Path(folder_paths.get_temp_directory()))
    if storage != "recompute" and needed > room:
        raise ValueError(
            f"storage: the capture{f' of {frames} frames' if frames > 1 else ''} needs {needed / 1e9:.3g} GB, and "
            f"{storage} has room for {room / 1e9:.3g} GB. {INSTEAD[storage]}, or capture fewer layers or steps"
            f"{', fewer frames' if frames > 1 else ''}{', or in fp16' if wide else ''}."
        )


def keep_in(storage: Storage) -> Keep:
    """Where captured steps go. Files go below the host's temp directory."""
    if storage == "memory":
        return MemoryStore
    return partial(DiskStore, Path(folder_paths.get_temp_directory()) / "diffstyler" / uuid.uuid4().hex)


def room_on_disk(folder: Path) -> float:
    """Bytes that are free on the disk of a folder, which need not be there yet."""
    there = next(part for part in (folder, *folder.parents) if part.exists())
    return shutil.disk_usage(there).free


def room_in_memory(wanted: int) -> float:
    """Bytes of RAM that a capture may still take; a tenth of what is free is left to everything else.

    The host lets go of cached results that this prompt does not use, where fewer than ``wanted`` bytes are free.
    """
    comfy.memory_management.extra_ram_release(math.ceil(wanted / 0.9))
    return 0.9 * comfy.model_management.get_free_memory(torch.device("cpu"))
