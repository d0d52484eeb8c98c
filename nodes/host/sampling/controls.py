"""ControlNets and T2I adapters in a batch of several branches: each is told of its chunks as in a plain run.

The host asks them for their part before any wrapper of the MODEL is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Processed = list[dict[str, Any]]
"""A conditioning as the host's guider holds it during a run."""

Conds = list[Processed | None]
"""What the host asks for in one evaluation."""


class PlainlyTold:
    """A control as the host sees it during one evaluation: the received one, which is read and written through this.

    count: the conditionings of a plain evaluation; chunk i is one of conditioning i % count.
    """

    def __init__(self, control: Any, count: int) -> None:
        object.__setattr__(self, "_told", (control, count))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._told[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._told[0], name, value)

    def get_control(
        self, x_noisy: Any, t: Any, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Any:
        """As the received control answers. The options are the host's own for this batch, shared with ``cond``."""
        control, count = self._told
        chunks = transformer_options["cond_or_uncond"]
        transformer_options["cond_or_uncond"] = [chunk % count for chunk in chunks]
        return control.get_control(x_noisy, t, cond, batched_number, transformer_options)


def told_plainly(conds: Sequence[Processed | None], count: int) -> Conds:
    """Conditionings whose controls are told of chunks i as i % count; the received ones are not changed.

    One control in several conditionings stays one: the host batches only those that share theirs.
    """
    known: dict[int, PlainlyTold] = {}

    def told(entry: dict[str, Any]) -> dict[str, Any]:
        control = entry.get("control")
        if control is None:
            return entry
        return {**entry, "control": known.setdefault(id(control), PlainlyTold(control, count))}

    return [None if cond is None else [told(entry) for entry in cond] for cond in conds]
