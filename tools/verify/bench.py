"""Where the self-checks run: a server with the pack, one prompt after the other, and what is known so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.comfy_client import ComfyClient, Progress, PromptInterrupted, PromptResult
from tools.devkit.console import Failure
from tools.results_prompt import Nodes, Settings
from tools.verify.scene import Link, Scene

CAPS: Mapping[str, float] = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}
"""No measured sensitivity allows more than this, by the number format of the UNet: 2^13 of its roundings in fp32, 100
in the half formats, whose every evaluation rounds and whose roundings guidance multiplies."""
TIMES, LEAST = 5.0, 1e-5
"""Two ways to the same result differ by the roundings that they make in another order, as the host's own result does
after a nudge that only flips roundings: 2e-6 in fp32, 5e-3 in fp16, 4e-2 in bf16 on the demo checkpoint (6 steps, cfg
4), and the pack's ways lie 0.8 to 1.1 times that apart."""


class _Stop(Exception):
    """Ends the wait for a prompt, which interrupts it."""


@dataclass
class Bench:
    """known: what later checks hold their figures against. figures: what the last prompt's nodes found."""

    client: ComfyClient
    settings: Settings
    facts: Mapping[str, Any]
    known: dict[str, Any] = field(default_factory=dict)

    def scene(self) -> Scene:
        """A new prompt with the content and the style in it."""
        return Scene(self.settings)

    def run(self, nodes: Scene, kept: str = "") -> dict[str, dict[str, Any]]:
        """Runs a prompt. -> what each of its looking nodes found

        kept: a node whose result must be an earlier one. Raises Failure where the server has let go of that.
        """
        result = self.client.queue(nodes.api)
        if kept and kept not in result.cached:
            raise Failure("compare with before", "the server has let go of the first result.", "free some RAM.")
        return findings(nodes, result)

    def gap(self, nodes: Scene, a: Link, b: Link, part: str = "whole", kept: str = "") -> float:
        """Norm of two latents' difference over the second's norm. Raises Failure where one is not finite."""
        nodes.compare(a, b, part)
        return gap_in(self.run(nodes, kept))

    @property
    def floor(self) -> float:
        """The host's own sensitivity. Raises Failure where it could not be measured."""
        if "floor" not in self.known:
            raise Failure("find the bound", "the host's own run failed (see above).", "mend that first.")
        return float(self.known["floor"])

    def bound(self) -> tuple[float, str]:
        """(how far two ways to the same result may lie apart, why): by what the host's own sampler does."""
        value = min(max(TIMES * self.floor, LEAST), self.cap)
        return value, f"{TIMES:g} x the host's sensitivity, {self.cap:g} at most in {self.facts['computes']}"

    @property
    def cap(self) -> float:
        """What is allowed at most, whatever the host's sensitivity."""
        return CAPS.get(self.facts["computes"], CAPS["bfloat16"])

    def cancel(self, nodes: Scene, title: str) -> None:
        """Starts a prompt and cancels it in the middle of one node. Raises Failure when it ran to its end."""

        def watch(progress: Progress) -> None:
            if progress.event == "step" and progress.node_id == title and progress.value >= 2:
                raise _Stop

        if _ends(lambda: self.client.queue(nodes.api, watch)):
            raise Failure("cancel", f"{title} ended before it could be cancelled.", "raise --steps.")


def gap_in(found: Mapping[str, Mapping[str, Any]], title: str = "gap") -> float:
    """The gap that a Compare found. Raises Failure where a latent is not finite."""
    if not found[title]["finite"] or found[title]["gap"] is None:
        raise Failure("compare", "a result is not finite (NaN or Inf).", "see which of the two nodes made it.")
    return float(found[title]["gap"])


def findings(nodes: Nodes, result: PromptResult) -> dict[str, dict[str, Any]]:
    """What the looking nodes of a prompt found, by their titles."""
    return {
        title: json.loads(result.text(title))
        for title, node in nodes.api.items()
        if node["class_type"].startswith("DiffStylerVerify_") and result.text(title)
    }


def _ends(run: Callable[[], object]) -> bool:
    """Whether it ran to its end, and was not stopped."""
    try:
        run()
    except (_Stop, PromptInterrupted):
        return False
    return True
