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

from ....diffstyler_core.styles.regions import fuse
from .forward import KEY, Acting, Options, acting_in, acting_options

Processed = list[dict[str, Any]]
"""A conditioning as the host's guider holds it during a run."""

Prompts = dict[str, Processed]
"""A run's "positive" and "negative" conditioning, as the host processed them together."""


Conds = list[Processed | None]
"""What the host asks for in one evaluation."""

NAMES = ("positive", "negative")
"""The conditionings that each branch answers with its own."""


class BranchStep(NamedTuple):
    """One branch at one step: where it counts, with which prompts, and what acts in its rows.

    share: [h, w], its part of the fused prediction; the branches' shares sum to one wherever the result counts.
    """

    share: Tensor
    prompts: Prompts
    acting: Acting


def fusing_options(model_options: Options, asked: Prompts, branches: Sequence[BranchStep]) -> Options:
    """Model options under which every conditioning is predicted once per branch.

    ``asked``: the prompts that the guider asks for; each branch answers with its own. Any other conditioning (one that
    another pack asks for) is the same for all branches.
    """
    if _alone(branches, asked):
        return acting_options(model_options, branches[0].acting)

    def calculate(
        executor: Any, model: Any, conds: Conds, x: Tensor, timestep: Tensor, options: Options
    ) -> list[Tensor]:
        return fused(executor, model, conds, x, timestep, options, asked, branches)

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
) -> list[Tensor]:
    """What ``calculate``, the host's batch of conditionings, gives for each of ``conds`` with all branches fused."""
    if _alone(branches, asked):
        return calculate(model, conds, x, timestep, acting_options(options, branches[0].acting))
    names = {entry.get("uuid"): name for name in NAMES for entry in asked.get(name, ())}
    known = [(cond, names.get(cond[0].get("uuid")) if cond else None) for cond in conds]
    rows = [[cond if name is None else branch.prompts[name] for cond, name in known] for branch in branches]
    if _patched(options):
        apart = zip(rows, branches, strict=True)
        out = [calculate(model, own, x, timestep, acting_options(options, branch.acting)) for own, branch in apart]
    else:
        together = _controls_told([row for own in rows for row in own], len(conds))
        flat = calculate(model, together, x, timestep, _chunks_named(options, branches, len(conds)))
        out = [flat[i : i + len(conds)] for i in range(0, len(flat), len(conds))]
    shares = [branch.share for branch in branches]
    return [fuse(predictions, shares) for predictions in zip(*out, strict=True)]


def _patched(options: Options) -> bool:
    """Whether somebody else's patches act inside the network: each branch is then an evaluation of its own.

    Such patches look for the one positive and the one negative chunk of a plain run (NAG takes the first of each), and
    would leave the other branches of a shared batch as they are.
    """
    inner = options.get("transformer_options", {})
    return any(inner.get(name) for name in ("patches", "patches_replace")) or "model_function_wrapper" in options


def _controls_told(rows: Conds, count: int) -> Conds:
    """The rows with controls that are told of positive and negative chunks as in a plain run of ``count`` rows."""
    told: dict[int, _Control] = {}

    def entry_told(entry: dict[str, Any]) -> dict[str, Any]:
        control = entry.get("control")
        if control is None:
            return entry
        return {**entry, "control": told.setdefault(id(control), _Control(control, count))}

    return [row and [entry_told(entry) for entry in row] for row in rows]


class _Control:
    """A control in the host's batch of branches; one for each of the received, so that rows batch as they would."""

    def __init__(self, control: Any, count: int) -> None:
        self._control, self._count = control, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def get_control(self, x: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: Options) -> Any:
        """The control's own, ``cond_or_uncond`` being 0 and 1 instead of numbers of branches.

        The host's dict of this batch is written to, not copied: what a control leaves in it, the model is to find.
        """
        chunks = transformer_options["cond_or_uncond"]
        transformer_options["cond_or_uncond"] = [chunk % self._count for chunk in chunks]
        return self._control.get_control(x, t, cond, batched_number, transformer_options)


def _alone(branches: Sequence[BranchStep], asked: Prompts) -> bool:
    return len(branches) == 1 and branches[0].prompts is asked


def _chunks_named(options: Options, branches: Sequence[BranchStep], count: int) -> Options:
    """``cond_or_uncond`` as in a plain run for all that look at it, and in each chunk what acts in its branch."""
    outer = options.get("model_function_wrapper")

    def call(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        chunks = args["cond_or_uncond"]
        plain = [chunk % count for chunk in chunks]
        acting = [branches[chunk // count].acting for chunk in chunks]
        inner = acting_in({**args["c"]["transformer_options"], "cond_or_uncond": plain}, acting)
        args = {**args, "cond_or_uncond": plain, "c": {**args["c"], "transformer_options": inner}}
        if outer is not None:
            return outer(apply_model, args)
        return apply_model(args["input"], args["timestep"], **args["c"])

    return {**options, "model_function_wrapper": call}
