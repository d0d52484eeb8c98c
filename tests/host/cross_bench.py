"""Cross-attention written out: hooks on every attn2 that compute the papers' equations in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.patcher_extension
import tiny
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from torch import Tensor

SIGMA = 3.0
Weights = Callable[[int, int, int], list[tuple[Tensor | None, Any]]]
"""(layer, height, width of its grid) -> [(a prompt [1, tokens, width] or None for the row's own, its weight)]."""


def spatial_transformers(unet) -> list[SpatialTransformer]:
    """In the order of evaluation."""
    blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
    return [module for block in blocks for module in block if isinstance(module, SpatialTransformer)]


def run(model, x: Tensor, context: Tensor, chunks: list[int], **options: Any) -> Tensor:
    """One evaluation as the host makes it, under the MODEL's own options and wrappers."""
    inner = dict(model.model_options["transformer_options"])
    inner["wrappers"] = comfy.patcher_extension.copy_nested_dicts(model.wrappers)
    inner |= {"cond_or_uncond": list(chunks), "sample_sigmas": torch.tensor([SIGMA, 0.0]), **options}
    y = {"y": torch.zeros(len(x), 1568)} if model.model.diffusion_model.num_classes else {}
    return model.model.apply_model(x, torch.full((len(x),), SIGMA), c_crossattn=context, transformer_options=inner, **y)


def attention(module, x: Tensor, context: Tensor) -> Tensor:
    """Attn(Q, K, V) before to_out, in double precision, from the module's own projections."""
    q, k, v = module.to_q(x).double(), module.to_k(context).double(), module.to_v(context).double()
    q, k, v = (part.unflatten(-1, (module.heads, -1)).transpose(1, 2) for part in (q, k, v))
    maps = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return (maps @ v).transpose(1, 2).flatten(-2)


@contextmanager
def written_out(model, chunks: list[int], weights: Weights) -> Iterator[None]:
    """While it lasts, every cross-attention of the UNet is sum_i w_i Attn(Q, K_i, V_i) in the rows of chunk 0."""
    with ExitStack() as stack:
        for number, spatial in enumerate(spatial_transformers(model.model.diffusion_model)):
            grid: dict[str, tuple[int, int]] = {}
            stack.enter_context(_removed(spatial.register_forward_pre_hook(_sees(grid))))
            for block in spatial.transformer_blocks:
                hook = block.attn2.register_forward_hook(_blends(number, grid, chunks, weights), with_kwargs=True)
                stack.enter_context(_removed(hook))
        yield


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _sees(grid: dict[str, tuple[int, int]]) -> Callable[..., None]:
    def hook(module, args):
        grid["size"] = tuple(args[0].shape[-2:])

    return hook


def _blends(number: int, grid: dict, chunks: list[int], weights: Weights) -> Callable[..., Tensor]:
    def hook(module, args, kwargs, output):
        x, context = args[0], kwargs["context"]
        size = len(x) // len(chunks)
        rows = []
        for at, (row, own) in enumerate(zip(x, context, strict=True)):
            read = weights(number, *grid["size"]) if chunks[at // size] == 0 else [(None, 1.0)]
            out = torch.zeros(1, row.shape[0], module.to_v.weight.shape[0], dtype=torch.float64)
            for prompt, weight in read:
                w = weight.double().reshape(1, -1, 1) if isinstance(weight, Tensor) else weight
                out = out + w * attention(module, row[None], own[None] if prompt is None else prompt)
            rows.append(out)
        return module.to_out(torch.cat(rows).to(output))

    return hook


def area(mask: Tensor, height: int, width: int) -> Tensor:
    """The mean over the area of each new pixel, by shares of old pixels counted one by one."""

    def shares(old: int, new: int) -> Tensor:
        out = torch.zeros(new, old, dtype=torch.float64)
        for i in range(new):
            for j in range(old):
                low, high = max(i * old, j * new), min((i + 1) * old, (j + 1) * new)
                out[i, j] = max(0, high - low) / old
        return out

    return shares(mask.shape[0], height) @ mask.double() @ shares(mask.shape[1], width).T


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def latent(seed: int, rows: int, height: int, width: int) -> Tensor:
    """x at the noise level of ``run``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, height, width, generator=generator) * (1 + SIGMA**2) ** 0.5


def prompt(seed: int, tokens: int = 77) -> Tensor:
    """An embedding [1, tokens, 32]."""
    return tiny.make_prompt(seed, tokens)[0][0]
