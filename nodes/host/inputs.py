"""Checks of what users wire in, before any long work starts. Each error names the input, the value and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import comfy.model_base
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

Conditioning = list[list[Any]]
"""A CONDITIONING as the host's sockets carry it: [[embedding, options], ...]."""

LEAST_SIDE = 8
"""Latent pixels (64 of the picture): below it the UNet's deepest level has not one whole pixel."""
LARGEST_LATENT = 1e6
"""Beyond what any picture or noise is: x_T of a zero-SNR model, in the VAE's scale, reaches 2e5."""
LARGEST_EMBEDDING = 65504.0
"""The largest number of fp16; text encoders stay below a thousand."""
PARTIAL = ("area", "mask")
NAME_LENGTH = 200


def require_number(value: float, name: str, low: float, high: float) -> float:
    """The value, when it is a finite number in low..high. JSON's NaN passes the host's own bounds."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in {low:g}..{high:g}, got {value!r:.40}. Type one in.")
    return value


def require_text(value: str, name: str, most: int = NAME_LENGTH) -> str:
    """The text, when it has at most ``most`` letters and can be written as UTF-8 (no half of a surrogate pair)."""
    if len(value) > most:
        raise ValueError(
            f"{name} may have {most} letters at most, got {len(value)}, starting {value[:20]!a}. Shorten it."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} holds half of a letter (a lone surrogate), got {value[:40]!a}. Type it anew.")
    return value


def require_choice(value: str, name: str, known: Sequence[str]) -> str:
    """The value, when it is one of those that the widget lists."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r:.100}.")
    return value


def refusal(*checks: Callable[[], object]) -> bool | str:
    """For ``validate_inputs``, before anything runs: True, or what the first check that refuses says."""
    try:
        for check in checks:
            check()
    except ValueError as error:
        return str(error)
    return True


def one_line(text: str) -> str:
    """A name as words and errors show it: no line ends, no space around it."""
    return " ".join(text.split())


def one_latent(latent: dict[str, Any], model: ModelPatcher, name: str) -> Tensor:
    """The samples [1, C, H, W] of a LATENT, in the VAE's scale, when they fit the model.

    Raises ValueError for anything else than one finite picture of the model's channels, 64 pixels or more a side.
    """
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        kind = f"samples of {samples.dtype}" if isinstance(samples, Tensor) else f"{type(samples).__name__} as samples"
        raise ValueError(
            f"{name}: a LATENT with 'samples', a tensor of floating point numbers, is expected, got {kind}. "
            "Wire VAE Encode."
        )
    channels = model.get_model_object("latent_format").latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels:
        raise ValueError(
            f"{name}: this model works on latents [1, {channels}, H, W], got {list(samples.shape)}. "
            "Encode the picture with this checkpoint's own VAE."
        )
    if samples.shape[0] != 1:
        raise ValueError(
            f"{name}: one content is expected, got a batch of {samples.shape[0]}. "
            "Pick one with 'Latent From Batch' or 'Image From Batch', or queue them one by one."
        )
    height, width = samples.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise ValueError(
            f"{name}: a picture of at least {8 * LEAST_SIDE} pixels on each side is needed, got a latent of "
            f"{width} x {height} (a picture of {8 * width} x {8 * height}). Use a larger picture."
        )
    require_finite(samples, name)
    _require_within(samples, name, LARGEST_LATENT, "no picture's latent is that large: check the node that made it")
    return samples


def latent_notes(latent: dict[str, Any]) -> list[str]:
    """A line for each part of a LATENT that the pack does not use, to be shown on the node."""
    lines = []
    if latent.get("noise_mask") is not None:
        lines.append(
            "note: the latent's noise mask is not used; a Regional Style's mask says where the picture changes"
        )
    if latent.get("batch_index") is not None:
        lines.append("note: the latent's batch index is not used: no noise is drawn here")
    return lines


def require_finite(tensor: Tensor, name: str) -> None:
    """Raises ValueError when a tensor holds NaN or infinity."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds values that are not finite (NaN or infinity): check the node that made it.")


def _require_within(tensor: Tensor, name: str, largest: float, why: str) -> None:
    found = tensor.abs().max().item() if tensor.numel() else 0.0
    if found > largest:
        raise ValueError(f"{name} holds values up to {found:.3g}, beyond {largest:.3g}: {why}.")


def one_conditioning(conditioning: list[Any], name: str) -> list[Any]:
    """A CONDITIONING with exactly one entry."""
    if not isinstance(conditioning, (list, tuple)) or len(conditioning) != 1:
        raise ValueError(
            f"{name}: one prompt is expected, got {_count(conditioning)}. "
            "Wire a single CLIP Text Encode, without Conditioning Combine."
        )
    return conditioning


def _count(conditioning: Any) -> str:
    return f"{len(conditioning)} combined ones" if isinstance(conditioning, (list, tuple)) else f"{conditioning!r:.40}"


def require_conditioning(conditioning: Any, model: ModelPatcher, name: str, one: bool = False) -> Conditioning:
    """A CONDITIONING whose embeddings fit the model's UNet; [tensor [1, tokens, width], options] each, all finite.

    one: exactly one entry, for the whole picture and the whole run, as the content's own prompt must be: where an
    area, a mask or a timestep range leaves something out, the host predicts zeros.
    Raises ValueError that names the input, and the entry where there are several.
    """
    if one:
        one_conditioning(conditioning, name)
    if not isinstance(conditioning, (list, tuple)) or not conditioning:
        raise ValueError(f"{name}: a prompt is expected, got {conditioning!r:.40}. Wire CLIP Text Encode.")
    for number, entry in enumerate(conditioning, 1):
        _require_entry(entry, model, name if len(conditioning) == 1 else f"{name}, prompt {number}")
        if one:
            _require_whole(entry[1], name)
    return conditioning  # type: ignore[return-value]


def _require_entry(entry: Any, model: ModelPatcher, name: str) -> None:
    if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], dict)):
        raise ValueError(
            f"{name}: [embedding, options] is expected, got {type(entry).__name__}. Wire CLIP Text Encode."
        )
    embedding, options = entry
    width = model.model.model_config.unet_config.get("context_dim")
    if not isinstance(embedding, Tensor) or embedding.ndim != 3 or not embedding.is_floating_point():
        shape = list(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
        raise ValueError(f"{name}: an embedding [1, tokens, width] is expected, got {shape}. Wire CLIP Text Encode.")
    if embedding.shape[0] != 1 or embedding.shape[1] == 0:
        raise ValueError(
            f"{name}: one prompt's embedding [1, tokens, width] is expected, got {list(embedding.shape)}. "
            "Wire one CLIP Text Encode instead of a batch."
        )
    if isinstance(width, int) and embedding.shape[2] != width:
        raise ValueError(
            f"{name}: this model takes embeddings of width {width}, got {embedding.shape[2]}: the text encoder belongs "
            "to another kind of model. Encode the prompt with this checkpoint's own CLIP."
        )
    for part, tensor in [("", embedding), *_tensors(options)]:
        require_finite(tensor, f"{name}{part}")
    _require_within(embedding, name, LARGEST_EMBEDDING, "no text encoder gives that: check the node that made it")
    _require_pooled(options.get("pooled_output"), model, name)


def _tensors(options: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for key, value in options.items():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, Tensor) and part.is_floating_point():
                yield f", {key}", part


def _require_pooled(pooled: Any, model: ModelPatcher, name: str) -> None:
    """SDXL takes the prompt's pooled embedding beside what it makes of the picture's size, 256 values a number."""
    numbers = {comfy.model_base.SDXL: 6, comfy.model_base.SDXLRefiner: 5}.get(type(model.model))
    if numbers is None:
        return
    width = model.model.adm_channels - 256 * numbers
    shape = list(pooled.shape) if isinstance(pooled, Tensor) else None
    if shape != [1, width]:
        raise ValueError(
            f"{name}: this model takes a pooled embedding [1, {width}] with each prompt, got {shape or 'none'}. "
            "Encode the prompt with this checkpoint's own CLIP."
        )


def _require_whole(options: dict[str, Any], name: str) -> None:
    found = [key for key in PARTIAL if options.get(key) is not None]
    if found:
        raise ValueError(
            f"{name}: the content's prompt acts on the whole picture, got one with {' and '.join(found)}. "
            "Wire CLIP Text Encode without Conditioning (Set Area) or (Set Mask)."
        )
    start, end = _range_of(options)
    if start > 0.0 or end < 1.0:
        raise ValueError(
            f"{name}: the content's prompt acts in the whole run, got one for {100 * start:g} % to {100 * end:g} % of "
            "it. Wire CLIP Text Encode without ConditioningSetTimestepRange."
        )


def require_covered(conditioning: Sequence[Any], model: ModelPatcher, sigmas: Sequence[float], name: str) -> None:
    """Raises ValueError when timestep ranges leave a noise level of the run without a prompt: it would predict zeros.

    sigmas: the levels at which the UNet is asked, without the picture's.
    """
    percent = model.get_model_object("model_sampling").percent_to_sigma
    ranges = [_range_of(options) for _, options in conditioning]
    bounds = [
        (math.inf if start <= 0.0 else percent(start), 0.0 if end >= 1.0 else percent(end)) for start, end in ranges
    ]
    for step, sigma in enumerate(sigmas):
        if not any(low <= sigma <= high for high, low in bounds):
            words = ", ".join(f"{100 * start:g} % to {100 * end:g} %" for start, end in ranges)
            raise ValueError(
                f"{name}: no prompt acts at step {step} of {len(sigmas)}, as the timestep ranges are {words}. "
                "Close the gap with another prompt for the rest (Conditioning Combine), or remove the range."
            )


def _range_of(options: dict[str, Any]) -> tuple[float, float]:
    """The share of the run in which the host uses a prompt: its own range, within that of a scheduled CLIP."""
    start = max(options.get("start_percent") or 0.0, options.get("clip_start_percent") or 0.0)
    return start, min(options.get("end_percent", 1.0), options.get("clip_end_percent", 1.0))


def style_pictures(image: Tensor, smallest: int = 64) -> Tensor:
    """Style pictures [B, H, W, 3] with values in 0..1."""
    if image.ndim != 4 or image.shape[-1] != 3:
        channels = image.shape[-1] if image.ndim == 4 else "no"
        remedy = {
            4: "Flatten its transparency first, e.g. with 'Split Image with Alpha'",
            1: "Turn the greyscale picture into RGB first",
        }.get(image.shape[-1], "Use an RGB picture")
        raise ValueError(f"style_image: RGB pictures are expected, got {channels} channels. {remedy}.")
    if not image.shape[0]:
        raise ValueError("style_image: at least one picture is expected, got a batch of 0. Wire a picture.")
    if min(image.shape[1:3]) < smallest:
        raise ValueError(
            f"style_image: pictures need at least {smallest} pixels on each side, got "
            f"{image.shape[2]} x {image.shape[1]}. Use a larger picture; enlarging a tiny one teaches only blur."
        )
    require_finite(image, "style_image")
    return image.clamp(0.0, 1.0)
