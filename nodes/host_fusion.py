"""Several styles in one evaluation: every branch predicted in one batch, fused by its share of the picture (eq. 8).

Works through the host's CALC_COND_BATCH wrapper: the host's guidance, and whatever other packs hang on it, see one
fused prediction for the positive and one for the negative side, as in a plain run. Guidance is linear, so fusing
before it equals fusing after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ..diffstyler_core.regions import fuse
from .host_forward import BRANCHES, KEY, Options
from .host_inputs import Conditioning
from .host_lora import ForwardLora

Processed = list[dict[str, Any]]
"""A conditioning as the host's guider holds it during a run."""

LoraAt = Callable[[int], ForwardLora | None]
"""The LoRA of a step, None for the base model."""


class Branch(NamedTuple):
    """One prediction of every evaluation.

    share: [h, w], its part of the fused prediction; the branches' shares sum to one wherever the result counts.
    lora: of each step. positive: its own prompt; None: the sampler's.
    """

    share: Tensor
    lora: LoraAt
    positive: Conditioning | None = None


def fusing_options(
    model_options: Options, base: Processed, positives: Sequence[Processed], shares: Sequence[Tensor]
) -> Options:
    """Model options under which every conditioning is predicted once per branch.

    ``base`` is the positive that the guider asks for; branch i answers with ``positives[i]`` instead. Any other
    conditioning (the negative, or one that another pack asks for) is the same for all branches.
    """
    if len(positives) == 1 and positives[0] is base:
        return model_options
    own = {entry.get("uuid") for entry in base}

    def calculate(
        executor: Any, model: Any, conds: list[Processed | None], x: Tensor, timestep: Tensor, options: Options
    ) -> list[Tensor]:
        def of_branch(positive: Processed, cond: Processed | None) -> Processed | None:
            return positive if cond and cond[0].get("uuid") in own else cond

        rows = [of_branch(positive, cond) for positive in positives for cond in conds]
        out = executor(model, rows, x, timestep, _branches_named(options, len(conds)))
        return [fuse(out[i :: len(conds)], shares) for i in range(len(conds))]

    options = comfy.model_patcher.create_model_options_clone(model_options)
    add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, calculate, options, is_model_options=True)
    return options


def _branches_named(options: Options, count: int) -> Options:
    """``cond_or_uncond`` as in a plain run for all that look at it, and each chunk's branch beside it."""
    outer = options.get("model_function_wrapper")

    def call(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        chunks = args["cond_or_uncond"]
        plain = [chunk % count for chunk in chunks]
        inner = {**args["c"]["transformer_options"], "cond_or_uncond": plain, BRANCHES: [c // count for c in chunks]}
        args = {**args, "cond_or_uncond": plain, "c": {**args["c"], "transformer_options": inner}}
        if outer is not None:
            return outer(apply_model, args)
        return apply_model(args["input"], args["timestep"], **args["c"])

    return {**options, "model_function_wrapper": call}
