"""Injection settings: which of the captured sites are injected, how long and how strongly (DiffStyler 2026, eqs. 4-6).

Windows are shares of the run, so that they mean the same for every number of steps S; a plan counts them in steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..diffusion.shares import percent, require_share, steps_in
from .attention import BLENDS, Blend
from .plan import MODES, InjectionPlan, Mode
from .sites import Kind, Site, format_layers

Layers = tuple[int, ...] | None
"""Decoder layers to inject; None for all that were captured."""


@dataclass(frozen=True)
class InjectionSettings:
    """What is injected of a capture, and when.

    feature_end, attention_end: share of the run, in [0, 1], in whose steps the content overrides completely.
    mode: "fixed" (2024) stops there; "adaptive" (2026) then lets the style's own attention in gradually.
    blend: what is blended afterwards, see ``attention.mix``.
    feature_layers, self_attention_layers, cross_attention_layers: of those captured; None for all.
    """

    feature_end: float = 0.6
    attention_end: float = 0.5
    mode: Mode = "adaptive"
    blend: Blend = "qk"
    feature_layers: Layers = None
    self_attention_layers: Layers = None
    cross_attention_layers: Layers = None

    def __post_init__(self) -> None:
        require_share(self.feature_end, "feature_end_percent")
        require_share(self.attention_end, "attention_end_percent")
        if self.mode not in MODES:
            raise ValueError(f"attention_mode must be one of {MODES}, got {self.mode!r}.")
        if self.blend not in BLENDS:
            raise ValueError(f"blend must be one of {BLENDS}, got {self.blend!r}.")

    def layers(self, kind: Kind) -> Layers:
        """The layers of one kind of site."""
        return {
            "feature": self.feature_layers,
            "self-attention": self.self_attention_layers,
            "cross-attention": self.cross_attention_layers,
        }[kind]

    def ends(self, steps: int) -> tuple[int, int]:
        """(feature_steps, attention_steps) of a run of S steps."""
        return steps_in(self.feature_end, steps), steps_in(self.attention_end, steps)

    def plan(
        self, steps: int, feature_sites: Iterable[Site], attention_sites: Iterable[Site], span: float = 1000
    ) -> InjectionPlan:
        """The plan of a run of S steps, ``span`` timesteps long, over the captured sites.

        Raises ValueError for layers that were not captured.
        """
        return InjectionPlan(
            steps,
            *self.ends(steps),
            self._chosen(feature_sites, "feature"),
            (
                *self._chosen(attention_sites, "self-attention"),
                *self._chosen(attention_sites, "cross-attention"),
            ),
            self.mode,
            self.blend,
            span,
        )

    def _chosen(self, captured: Iterable[Site], kind: Kind) -> tuple[Site, ...]:
        sites, layers = tuple(site for site in captured if site.kind == kind), self.layers(kind)
        if layers is None:
            return sites
        there = tuple(sorted({site.layer for site in sites}))
        missing = tuple(layer for layer in layers if layer not in there)
        if missing:
            raise ValueError(
                f"injection: {kind} layers {format_layers(missing)} are to be injected, which were not captured "
                f"(captured {kind} layers: {format_layers(there) or 'none'}). Capture them too, or leave them out."
            )
        return tuple(site for site in sites if site.layer in layers)

    def __str__(self) -> str:
        if self == NOTHING:
            return "nothing of the content injected"
        windows = f"features {percent(self.feature_end)}, attention {percent(self.attention_end)}"
        words = [f"{windows} of the run, {self.mode}, {self.blend}"]
        kinds: tuple[Kind, ...] = ("feature", "self-attention", "cross-attention")
        layers = [(kind, self.layers(kind)) for kind in kinds]
        words += [f"{kind} layers {format_layers(some) or 'none'}" for kind, some in layers if some is not None]
        return "; ".join(words)


NOTHING = InjectionSettings(0.0, 0.0, "fixed")
"""The run goes on as it would."""

PRESETS = {
    "paper 2026": InjectionSettings(0.6, 0.5, "adaptive", "qk"),
    "paper 2024": InjectionSettings(0.6, 0.5, "fixed", "qk"),
    "keep more content": InjectionSettings(0.8, 0.8, "adaptive", "qk"),
    "take more style": InjectionSettings(0.4, 0.3, "adaptive", "qk"),
}
"""The papers' 30 and 25 of 50 steps (adaptive in 2026, fixed in 2024), and one step to either side."""
