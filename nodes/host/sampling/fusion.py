"""Several styles in one evaluation: every branch predicted in one batch, fused by its share of the picture (eq. 8).

Works through the host's CALC_COND_BATCH wrapper: the host's guidance, and whatever other packs hang on it, see one
fused prediction for the positive and one for the negative side, as in a plain run. Guidance is linear, so fusing
before it equals fusing after it.

What looks at single rows is told of them as in a plain run. Where a MODEL carries other packs' patches inside the
UNet, which may take the first positive and negative chunk for the only ones (as NAGuidance does), each branch is a
batch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ....diffstyler_core.styles.regions import fuse
from ..lora.forwards import Forwards
from .controls import Conds, Processed, told_plainly
from .forward import KEY, Acting, Options, acting_in, acting_options

Prompts = dict[str, Processed]
"""A run's "positive" and "negative" conditioning, as the host processed them together."""

NAMES = ("positive", "negative")
"""The conditionings that each branch answers with its own."""


class BranchStep(NamedTuple):
    """One branch at one step: where it counts, with which prompts, and what acts in its rows.

    share: [h, w] or [B, h, w], its part of the fused prediction; the branches' shares sum to one wherever the result
    counts.
    """

    share: Tensor
    prompts: Prompts
    acting: Acting


def fusing_options(
    model_options: Options, asked: Prompts, branches: Sequence[BranchStep], forwards: Forwards
) -> Options:
    """Model options under which every conditioning is predicted once per branch.

    ``asked``: the prompts that the guider asks for; each branch answers with its own. Any other conditioning (one that
    another pack asks for) is the same for all branches. forwards: of the run.
    """
    if _alone(branches, asked):
        return acting_options(model_options, branches[0].acting, forwards)

    def calculate(
        executor: Any, model: Any, conds: Conds, x: Tensor, timestep: Tensor, options: Options
    ) -> list[Tensor]:
        return fused(executor, model, conds, x, timestep, options, asked, branches, forwards)

    options = comfy.model_patcher.create_model_options_clone(model_options)
    add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, calculate, options, is_model_options=True)
    return options


def fused(
    calculate: Callable[..., list[Tensor]],
    model: Any,
    conds: Conds,
    x: Tensor,
    timestep: Tensor,
    options: Options,
    asked: Prompts,
    branches: Sequence[BranchStep],
    forwards: Forwards,
) -> list[Tensor]:
    """What ``calculate``, the host's batch of conditionings, gives for each of ``conds`` with all branches fused."""
    if _alone(branches, asked):
        return calculate(model, conds, x, timestep, acting_options(options, branches[0].acting, forwards))
    names = {entry.get("uuid"): name for name in NAMES for entry in asked.get(name, ())}
    known = [(cond, names.get(cond[0].get("uuid")) if cond else None) for cond in conds]
    by_branch = [[cond if name is None else branch.prompts[name] for cond, name in known] for branch in branches]
    if _patched_inside(options):
        own = zip(by_branch, branches, strict=True)
        out = [calculate(model, rows, x, timestep, acting_options(options, b.acting, forwards)) for rows, b in own]
    else:
        out = _in_one_batch(calculate, model, by_branch, x, timestep, options, branches, forwards)
    shares = [branch.share for branch in branches]
    return [fuse(predictions, shares) for predictions in map(list, zip(*out, strict=True))]


def _in_one_batch(
    calculate: Callable[..., list[Tensor]],
    model: Any,
    by_branch: Sequence[Conds],
    x: Tensor,
    timestep: Tensor,
    options: Options,
    branches: Sequence[BranchStep],
    forwards: Forwards,
) -> list[list[Tensor]]:
    """Of each branch its predictions, from one call of the host's for all of them."""
    count = len(by_branch[0])
    rows = told_plainly([cond for conds in by_branch for cond in conds], count)
    out = calculate(model, rows, x, timestep, _chunks_named(options, branches, count, forwards))
    return [out[i : i + count] for i in range(0, len(out), count)]


def _patched_inside(options: Options) -> bool:
    """Whether another pack's patches act in or around the UNet, where they see the chunks of a batch."""
    inner = options.get("transformer_options", {})
    return any(inner.get(name) for name in ("patches", "patches_replace")) or "model_function_wrapper" in options


def _alone(branches: Sequence[BranchStep], asked: Prompts) -> bool:
    return len(branches) == 1 and branches[0].prompts is asked


def _chunks_named(options: Options, branches: Sequence[BranchStep], count: int, forwards: Forwards) -> Options:
    """``cond_or_uncond`` as in a plain run for all that look at it, and in each chunk what acts in its branch."""

    def call(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        chunks = args["cond_or_uncond"]
        plain = [chunk % count for chunk in chunks]
        acting = [branches[chunk // count].acting for chunk in chunks]
        inner = acting_in({**args["c"]["transformer_options"], "cond_or_uncond": plain}, acting, forwards)
        return apply_model(args["input"], args["timestep"], **{**args["c"], "transformer_options": inner})

    return {**options, "model_function_wrapper": call}
